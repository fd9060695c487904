package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/sim/export"
)

func newSimExport(a *app) *cobra.Command {
	var format string
	var seed uint64
	c := &cobra.Command{
		Use: "export FILE", Short: "A scenario as Graphviz, as STIX 2.1 or as a picture, on standard output", Args: cobra.ExactArgs(1),
		Long: `Write a scenario for other tools: graphviz (DOT), stix (a STIX 2.1 bundle of infrastructure, software, vulnerabilities and
their relationships, with the same identifiers every time), or svg: one run of it, with what was held where over time.`,
		Example: `  omega sim export office.yaml --format graphviz | dot -Tsvg > office.svg
  omega sim export office.yaml --format svg --seed 7 > day.svg
  omega sim export office.yaml --format stix > office.json`,
		RunE: func(_ *cobra.Command, args []string) error {
			s, err := readScenario(args[0])
			if err != nil {
				return err
			}
			var out []byte
			switch format {
			case "graphviz":
				out = export.Graphviz(s)
			case "stix":
				out, err = export.STIX(s)
				out = append(out, '\n')
			case "svg":
				out, err = export.Network(s, seed)
			default:
				return fail(exitUsage, "format %q: want graphviz, svg or stix", format)
			}
			if err != nil {
				return err
			}
			_, err = a.out.Write(out)
			return err
		},
	}
	c.Flags().StringVar(&format, "format", "graphviz", "what to write: graphviz, svg or stix")
	c.Flags().Uint64Var(&seed, "seed", 1, "seed of the run that svg shows")
	return c
}

// writeFile writes a picture.
func writeFile(path string, data []byte) error {
	return create(path, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}
