package node

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
)

// TestFullDisk: a node whose disk is full says so, goes on acting, and is well again when there is room.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	r := newRig(t, "n1")
	if err := syscall.Mount("tmpfs", r.dir, "tmpfs", 0, "size=8m,mode=0700"); err != nil {
		t.Skip("this host mounts no tmpfs:", err)
	}
	t.Cleanup(func() { r.stop(); _ = syscall.Unmount(r.dir, 0) })
	r.cfg.ReservedDisk = 4
	r.found("lab")
	r.up()
	if p := problem(r.status(), "disk_full"); p != "" {
		t.Fatalf("with room: %s", p)
	}
	ballast := filepath.Join(r.dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 4096); ; {
		if _, err := f.Write(buf); err != nil {
			break
		}
	}
	f.Close()
	deny := &apiv1.RespondLocalRequest{Response: &apiv1.Response{Action: "deny", Target: &apiv1.Target{Address: "203.0.113.9"}, Reason: "test", TtlMs: 60_000}}
	// The last page of the feed's file may still have room: a few entries fit.
	for tries := 0; problem(r.status(), "store_failed") == ""; tries++ {
		if tries == 64 {
			t.Fatalf("with a full disk: %v", r.status().Problems)
		}
		if out, err := r.client.RespondLocal(t.Context(), deny); err != nil || out.Receipt.Outcome != "observed" {
			t.Fatalf("with a full disk: %v, %v", out, err)
		}
	}
	if s := r.status(); problem(s, "disk_full") == "" {
		t.Errorf("with a full disk: %v", s.Problems)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if out, err := r.client.RespondLocal(t.Context(), deny); err != nil || out.Receipt.Id == "" {
		t.Errorf("with room again: %v, %v", out, err)
	}
	if s := r.status(); problem(s, "disk_full") != "" || problem(s, "store_failed") != "" || problem(s, "store_damaged") != "" {
		t.Errorf("with room again: %v", s.Problems)
	}
}
