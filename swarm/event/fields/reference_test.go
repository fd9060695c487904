package fields

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

var referencePath = filepath.Join("..", "..", "..", "roles", "sentinel", "FIELDS.md")

// TestReference holds the printed field reference against the table; `make generate` writes it.
func TestReference(t *testing.T) {
	got := reference()
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(referencePath, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(referencePath)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the table of fields says: run make generate", referencePath)
	}
}

func reference() string {
	var b strings.Builder
	b.WriteString(`# Fields of an event

Made by ` + "`make generate`" + ` from ` + "`swarm/event/fields`" + `; do not edit. A field is named in ` + "`omega events --where`" + ` by its name, its OCSF path or a name that
Sigma rules have for it. Text is compared with = != ~ (contains) !~ in contains startswith endswith; a number with = != < > <= >= in (0x for
hexadecimal); an address with = != in, to an address or a prefix; a set with = contains in, to one of its names. What is said of a list
holds of the whole, a space between its parts, or of any part. A process that is started or ended stands at ` + "`process`" + `; one that acts on
something else at ` + "`actor.process`" + `, and its fields below it. In OCSF JSON sets are numbers, and ` + "`caps`, `gained`, `number`, `address`" + ` are hexadecimal.

| field | kind | is | OCSF path | Sigma | from |
| --- | --- | --- | --- | --- | --- |
`)
	for _, f := range All() {
		kind := "text"
		switch {
		case f.List:
			kind = "list"
		case f.Number != nil:
			kind = "number"
		case f.Address != nil:
			kind = "address"
		case f.Bits != nil:
			kind = "set"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", f.Name, kind, f.Meaning, code(f.OCSF), code(strings.Join(f.Sigma, " ")), f.Source)
	}
	b.WriteString("\n## Classes and activities\n\n| class | activity | class_uid | activity_id | Sigma category |\n| --- | --- | --- | --- | --- |\n")
	for _, c := range event.Classes() {
		for a := range event.Activities {
			e := event.Event{Class: c, Activity: event.Activity(a)}
			if id := ocsf.ActivityID(c, e.Activity); id != 99 {
				fmt.Fprintf(&b, "| %s | %s | %d | %d | %s |\n", c, e.Activity, ocsf.ClassUID(c, e.Activity), id, Category(&e))
			}
		}
	}
	var others []string
	for a := range event.Activities {
		other := true
		for _, c := range event.Classes() {
			other = other && ocsf.ActivityID(c, event.Activity(a)) == 99
		}
		if other {
			others = append(others, event.Activity(a).String())
		}
	}
	fmt.Fprintf(&b, "\nEvery other pair of class and activity is `activity_id` 99, which `unmapped.activity` names; these have no number in any class: %s.\n", strings.Join(others, ", "))
	fmt.Fprintf(&b, "\n`flag`: %s.\n", strings.Join(processFlags[:], ", "))
	return b.String()
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
