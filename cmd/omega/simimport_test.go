package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func shopFile(name string) string {
	return filepath.Join("..", "..", "sim", "inventory", "testdata", "shop", name)
}

// importShop imports the example and gives the scenario's file.
func importShop(t *testing.T) string {
	t.Helper()
	code, out, e := runSim(t, "import", shopFile("scan.xml"), shopFile("values.csv"), shopFile("shop.cdx.json"),
		"orders.example="+shopFile("backend.spdx.json"), "ledgerdb.example="+shopFile("backend.spdx.json"), "--osv", shopFile("osv"))
	if code != exitDone || !strings.Contains(e, "no-port: ") || !strings.Contains(e, `"owner"; did you mean`) {
		t.Fatalf("exit %d, %s", code, e)
	}
	file := filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSimImport(t *testing.T) {
	file := importShop(t)
	if code, out, e := runSim(t, "run", file, "--runs", "5"); code != exitDone || !strings.Contains(out, "loss") {
		t.Errorf("exit %d, %s %s", code, out, e)
	}
	if code, _, e := runSim(t, "import", shopFile("scan.xml"), "--kind", "csv"); code != exitFailed || !strings.Contains(e, "scan.xml: inventory:") {
		t.Errorf("exit %d, %s", code, e)
	}
	if code, _, _ := runSim(t, "import"); code != exitUsage {
		t.Errorf("no file: exit %d", code)
	}
}

func TestSimGenerate(t *testing.T) {
	code, out, e := runSim(t, "generate", "--hosts", "30", "--seed", "5")
	if code != exitDone || strings.Count(out, "{name: desk1-") != 21 {
		t.Errorf("exit %d, %s %s", code, out, e)
	}
	if code, again, _ := runSim(t, "generate", "--hosts", "30", "--seed", "5"); code != exitDone || again != out {
		t.Error("the same seed gives another file")
	}
	if code, _, e := runSim(t, "generate", "--hosts", "1000000000"); code != exitUsage || !strings.Contains(e, "from 4 to") {
		t.Errorf("exit %d, %s", code, e)
	}
}
