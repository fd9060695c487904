package trust

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatsAreShown: every test that THREATS.md names is there, and every actor has one.
func TestThreatsAreShown(t *testing.T) {
	b, err := os.ReadFile("THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9/]+): (Test\\w+)`")
	sections := strings.Split(string(b), "\n## ")
	shown := 0
	for _, section := range sections[1:] {
		title, text, _ := strings.Cut(section, "\n")
		tests := named.FindAllStringSubmatch(text, -1)
		if strings.Contains(text, "| shown by |") {
			for line := range strings.Lines(text) {
				if strings.HasPrefix(line, "| ") && !strings.Contains(line, " shown by ") && !strings.HasPrefix(line, "| --- ") && !named.MatchString(line) {
					t.Errorf("%s: no test in %q", title, line)
				}
			}
		}
		for _, m := range tests {
			shown++
			if !hasTest(t, m[1], m[2]) {
				t.Errorf("%s: there is no %s in %s", title, m[2], m[1])
			}
		}
	}
	if shown < 40 {
		t.Errorf("only %d tests are named", shown)
	}
}

func hasTest(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "func "+name+"(") {
			return true
		}
	}
	return false
}
