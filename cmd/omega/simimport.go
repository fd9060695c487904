package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/omega-mesh/omega/sim/inventory"
	"github.com/omega-mesh/omega/sim/world"
)

func newSimGenerate(a *app) *cobra.Command {
	var hosts int
	var seed uint64
	c := &cobra.Command{
		Use: "generate", Short: "Make up a network of any size as a scenario file, on standard output", Args: cobra.NoArgs,
		Long: `Make up a company's network: a demilitarised zone, offices, farms of servers, administrators; accounts whose secrets are
reused, people with working hours, holes, sensors, a few decoys and one attacker. The same seed gives the same file.`,
		Example: "  omega sim generate --hosts 500 --seed 7 > company.yaml\n  omega sim run company.yaml --runs 20",
		RunE: func(*cobra.Command, []string) error {
			s, err := world.Generate(hosts, seed)
			if err != nil {
				return fail(exitUsage, "%w", err)
			}
			return s.Write(a.out)
		},
	}
	c.Flags().IntVar(&hosts, "hosts", 100, "how many hosts")
	c.Flags().Uint64Var(&seed, "seed", 1, "seed of everything made up")
	return c
}

func newSimImport(a *app) *cobra.Command {
	var kind, owner string
	var osv []string
	var bare bool
	c := &cobra.Command{
		Use: "import [HOST=]FILE...", Short: "Turn scans, inventories, bills of materials and advisories into a scenario file, on standard output", Args: cobra.MinimumNArgs(1),
		Long: `Turn what others know about a network into one scenario, which "omega sim run" takes as it is:

  nmap       the XML of "nmap -oX" (with -sV the package behind a port can be told)
  csv        an inventory; its first line names the columns name, address, zone, value, escalate, detect, false_rate,
             services (ssh/22 http/80), decoys (2323) and accounts (ann backup/root)
  cyclonedx, spdx
             software bills of materials in JSON, of the host named by HOST= or --host, or by the bill itself

Hosts of one address or name are one. Advisories in OSV's format (--osv: a file, a folder or a .zip) become holes: remote
ones at the ports where their package listens, local ones as ways to root; the chance of each is made of its CVSS v3
vector. What the files do not tell is assumed or left out, and each such gap is a line on standard error.`,
		Example: `  omega sim import scan.xml > network.yaml
  omega sim import scan.xml values.csv web1=web1.cdx.json db=db.spdx.json --osv advisories/ > network.yaml
  omega sim import sbom.json --host web1 --osv all.zip | omega sim run /dev/stdin`,
		RunE: func(_ *cobra.Command, args []string) error {
			o := inventory.Options{OSV: osv, Bare: bare}
			for _, arg := range args {
				f := inventory.File{Path: arg, Kind: inventory.Kind(kind), Host: owner}
				if host, path, ok := strings.Cut(arg, "="); ok {
					f.Path, f.Host = path, host
				}
				o.Files = append(o.Files, f)
			}
			s, warnings, err := inventory.Import(o)
			for _, w := range warnings {
				a.progress(w.Code + ": " + w.Text)
			}
			if err != nil {
				return err
			}
			return s.Write(a.out)
		},
	}
	c.Flags().StringVar(&kind, "kind", "", "what the files are: nmap, csv, cyclonedx or spdx (default: recognised)")
	c.Flags().StringVar(&owner, "host", "", "the host whose software the bills of materials list")
	c.Flags().StringSliceVar(&osv, "osv", nil, "advisories in OSV's format: a JSON file, a folder or a .zip; may be repeated")
	c.Flags().BoolVar(&bare, "bare", false, "assume nothing: no values, links, attacker or response")
	return c
}
