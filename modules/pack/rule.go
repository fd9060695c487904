package pack

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/omega-mesh/omega/modules"
)

// Rule is what people read of a detection.
type Rule struct {
	ID             string
	Title          string
	Level          string
	Kind           modules.Kind
	Tactic         string
	Attack         []string // technique ids of ATT&CK 18
	Components     []string // data components of ATT&CK that it is seen by
	Reason         string   // why what it finds is bad
	Response       string   // what to do about it
	FalsePositives []string
	File           string // in the pack
}

// document is what of a rule's file no engine reads.
type document struct {
	Title, ID, Level, Description, Response, Engine string
	Tags                                            []string
	FalsePositives                                  []string `yaml:"falsepositives"`
	LogSource                                       struct{ Category, Service string }
	Detection                                       map[string]yaml.Node
	Correlation                                     map[string]yaml.Node
}

// Rules reads what there is, sorted by id. It is read anew for each caller: nothing of it is held by a node that runs.
func Rules() ([]Rule, error) {
	var out []Rule
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".yml") {
			return err
		}
		b, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		var parts []string
		for r := yaml.NewDecoder(bytes.NewReader(b)); ; {
			var x document
			if err := r.Decode(&x); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if x.Detection != nil {
				parts = append(parts, components(&x)...)
			}
			if x.Response == "" || x.Detection == nil && x.Correlation == nil {
				continue // a filter, or what a correlation counts
			}
			slices.Sort(parts)
			out = append(out, x.rule(name, slices.Compact(parts)))
		}
	})
	slices.SortFunc(out, func(a, b Rule) int { return cmp.Compare(a.ID, b.ID) })
	return out, err
}

func (x *document) rule(name string, seen []string) Rule {
	r := Rule{ID: x.ID, Title: x.Title, Level: x.Level, Kind: modules.Kind(cmp.Or(x.Engine, string(modules.KindSigma))), Components: seen,
		Reason: x.Description, Response: x.Response, FalsePositives: x.FalsePositives, File: name}
	for _, t := range x.Tags {
		t = strings.TrimPrefix(t, "attack.")
		if id := strings.ToUpper(t); modules.IsTechnique(id) {
			r.Attack = append(r.Attack, id)
		} else {
			r.Tactic = t
		}
	}
	return r
}

// Text is the rule as its files have it: the Sigma document and, where there is one, the module's source.
func (r *Rule) Text() (string, error) {
	b, err := files.ReadFile(r.File)
	if err != nil {
		return "", err
	}
	if code, err := files.ReadFile(strings.TrimSuffix(r.File, ".yml") + ".lua"); err == nil {
		b = append(append(b, "---\n"...), code...)
	}
	return string(b), nil
}

// components are the data components that a rule's log source stands for.
func components(x *document) []string {
	activities := map[string]bool{}
	for _, n := range x.Detection {
		if n.Kind != yaml.MappingNode {
			continue
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "activity" {
				activities[n.Content[i+1].Value] = true
				for _, v := range n.Content[i+1].Content {
					activities[v.Value] = true
				}
			}
		}
	}
	switch x.LogSource.Category {
	case "process_creation":
		return []string{"Process Creation"}
	case "process_access":
		if activities["process_vm_writev"] {
			return []string{"Process Modification"}
		}
		return []string{"Process Access"}
	case "process_activity":
		return []string{"Process Metadata"}
	case "file_event":
		switch {
		case activities["create"] && !activities["write"], activities["link"]:
			return []string{"File Creation"}
		}
		return []string{"File Creation", "File Modification"}
	case "file_rename":
		return []string{"File Modification"}
	case "file_delete":
		return []string{"File Deletion"}
	case "file_change":
		return []string{"File Metadata"}
	case "file_system_activity":
		return []string{"Volume Modification"}
	case "network_connection":
		return []string{"Network Connection Creation"}
	case "network_activity":
		return []string{"Network Traffic Flow"}
	case "dns_query":
		return []string{"Network Traffic Content"}
	case "driver_load":
		return []string{"Kernel Module Load"}
	case "kernel_activity", "memory_activity":
		return []string{"OS API Execution"}
	}
	return []string{"User Account Authentication"}
}
