// Package peers weighs this project's Sigma engine against others, on the same rules and events in one run. It is a
// module of its own, so that none of them is a dependency of the project: go test -bench . in this folder.
package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	bradley "github.com/bradleyjkemp/sigma-go"
	"github.com/bradleyjkemp/sigma-go/evaluator"
	markuskont "github.com/markuskont/go-sigma-rule-engine"

	"github.com/omega-mesh/omega/modules/sigma"
)

// rules are of the shape most public ones have; all three engines read them.
func rules(n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("title: Rule %d\nid: 00000000-0000-4000-8000-%012d\nlevel: medium\nlogsource:\n  product: linux\n  category: process_creation\ndetection:\n  selection:\n    Image|endswith: '/tool%d'\n    CommandLine|contains:\n      - 'evil%dword'\n      - 'other%dthing'\n  filter:\n    ParentImage|startswith: '/opt/app%d/'\n  condition: selection and not filter\n", i, i, i%60, i, i, i%40))
	}
	return all
}

func events(n int) []map[string]any {
	var all []map[string]any
	for i := range n {
		all = append(all, map[string]any{"category": "process_creation", "Image": fmt.Sprintf("/usr/bin/tool%d", i%60), "ParentImage": fmt.Sprintf("/opt/app%d/run", i%80),
			"CommandLine": fmt.Sprintf("tool%d --output /tmp/build/%d --mirror https://mirror.example/%d/package.tar.gz", i%60, i, i*7)})
	}
	return all
}

func BenchmarkEngines(b *testing.B) {
	const n = 300
	texts, batch := rules(n), events(512)
	b.Run("omega", func(b *testing.B) {
		var text []byte
		for _, t := range texts {
			text = append(append(text, "---\n"...), t...)
		}
		set := sigma.Parse("bench", text, sigma.Options{AnySource: true})
		if len(set.Rules) != n {
			b.Fatal(set.Rejected)
		}
		d := sigma.NewDetector(set)
		var records []*sigma.Record
		for _, e := range batch {
			raw, err := json.Marshal(e)
			if err != nil {
				b.Fatal(err)
			}
			r, err := sigma.ReadRecord(raw)
			if err != nil {
				b.Fatal(err)
			}
			records = append(records, r)
		}
		i := 0
		for b.Loop() {
			d.Record(records[i%len(records)], 0, func(*sigma.Rule) {})
			i++
		}
	})
	b.Run("sigma-go v0.6.6", func(b *testing.B) {
		var all []*evaluator.RuleEvaluator
		for _, t := range texts {
			r, err := bradley.ParseRule([]byte(t))
			if err != nil {
				b.Fatal(err)
			}
			all = append(all, evaluator.ForRule(r))
		}
		i := 0
		for b.Loop() {
			for _, r := range all {
				if _, err := r.Matches(context.Background(), batch[i%len(batch)]); err != nil {
					b.Fatal(err)
				}
			}
			i++
		}
	})
	b.Run("go-sigma-rule-engine v0.3.0", func(b *testing.B) {
		dir := b.TempDir()
		for i, t := range texts {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.yml", i)), []byte(t), 0o600); err != nil {
				b.Fatal(err)
			}
		}
		set, err := markuskont.NewRuleset(markuskont.Config{Directory: []string{dir}})
		if err != nil || set.Ok != n {
			b.Fatal(err, set)
		}
		var all []markuskont.Event
		for _, e := range batch {
			all = append(all, fields(e))
		}
		i := 0
		for b.Loop() {
			set.EvalAll(all[i%len(all)])
			i++
		}
	})
}

// fields is an event as the third engine takes it.
type fields map[string]any

func (fields) Keywords() ([]string, bool) { return nil, false }

func (f fields) Select(name string) (any, bool) {
	v, ok := f[name]
	return v, ok
}
