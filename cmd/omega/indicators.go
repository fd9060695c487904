package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	indicators "github.com/omega-mesh/omega/modules/indicator/store"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
)

// partBytes is how much of a file one message carries.
const partBytes = 64 << 10

func newIndicatorsCommand(a *app) *cobra.Command {
	return group("indicators", "What this host looks for: digests, addresses, domains, URLs and paths that others published",
		"  omega indicators add blocklist.txt --name blocklist --ttl 720h\n  omega indicators add taxii+https://taxii.example/taxii2/ --user me --password-file secret\n  omega indicators lookup 203.0.113.9",
		newIndicatorsAdd(a), newIndicatorsList(a), newIndicatorsLookup(a), newIndicatorsSightings(a), newIndicatorsStatus(a), newIndicatorsRefresh(a), newIndicatorsRemove(a))
}

func newIndicatorsAdd(a *app) *cobra.Command {
	s := &apiv1.IndicatorSource{}
	var passwordFile, tokenFile, caFile string
	var ttl time.Duration
	var confidence uint8
	cmd := &cobra.Command{
		Use: "add FILE|DIR|URL|-", Short: "Look for what a file, a folder, a list on the web or a TAXII 2.1 server has", Args: cobra.ExactArgs(1),
		Long: "Take in STIX 2.x bundles, MISP events, hosts files and lists (a digest, address, prefix, domain, URL or path a line; the first column of a table that is one; hxxp and [.] are understood), gzip or not.\n" +
			"Files are copied into the node. https://… is fetched again every indicator_refresh_s, and so is taxii+https://…, which may be a discovery URL, an API root or a collection; #NAME chooses a collection.",
		Example: "  omega indicators add blocklist.txt --name blocklist --ttl 720h --confidence 80\n  omega indicators add bundles/\n  curl -s https://feeds.example/misp.json | omega indicators add - --name misp\n" +
			"  omega indicators add 'taxii+https://taxii.example/taxii2/#C2 addresses' --token-file token",
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Confidence, s.TtlMs = uint32(confidence), float64(ttl.Milliseconds())
			for file, to := range map[*string]*string{&passwordFile: &s.Password, &tokenFile: &s.Token, &caFile: &s.Ca} {
				if *file == "" {
					continue
				}
				b, err := a.readBounded(*file, 64<<10)
				if err != nil {
					return absentFile(err)
				}
				if *to = string(b); to != &s.Ca {
					*to = strings.TrimRight(*to, "\r\n")
				}
			}
			files, err := indicatorFiles(args[0], s)
			if err != nil {
				return err
			}
			c := a.client()
			defer c.Close()
			a.progress("taking in " + args[0])
			out, err := a.addIndicators(cmd.Context(), c, s, files)
			if err != nil {
				return err
			}
			return a.printSource(out, true)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Name, "name", "", "what sightings call the source (default: its file's or host's name)")
	f.Uint8Var(&confidence, "confidence", indicators.DefaultConfidence, "1 to 100, of what names none itself: from 40 a finding is of medium severity, from 75 of high")
	f.DurationVar(&ttl, "ttl", 0, "how long what names no end is looked for after it came (default: as long as the source has it)")
	f.BoolVar(&s.Exact, "exact", false, "a listed domain is itself alone, not what lies beneath it")
	f.StringVar(&s.User, "user", "", "of a server")
	f.StringVar(&passwordFile, "password-file", "", "file with the user's password, - for standard input")
	f.StringVar(&tokenFile, "token-file", "", "file with a bearer token, - for standard input")
	f.StringVar(&caFile, "ca", "", "PEM file of who vouches for the server, beside those this host trusts")
	return cmd
}

// indicatorFiles fills in what kind of source a name is, and lists the files to hand over.
func indicatorFiles(name string, s *apiv1.IndicatorSource) ([]string, error) {
	base := filepath.Base(name)
	if strings.Contains(name, "://") {
		l, err := indicators.Locate(name)
		if err != nil {
			return nil, fail(exitUsage, "%w", err)
		}
		s.Kind, s.Location, base = string(l.Kind), l.Location, l.Name
	} else {
		s.Kind = string(indicators.Kept)
	}
	if s.Name == "" {
		if s.Name = base; name == "-" {
			s.Name = "standard input"
		}
	}
	if s.Kind != string(indicators.Kept) || name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, absentFile(fmt.Errorf("indicators: %w", err))
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	var files []string
	err = filepath.WalkDir(name, func(p string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case p != name && strings.HasPrefix(d.Name(), ".") && d.IsDir():
			return filepath.SkipDir
		case !d.Type().IsRegular() || strings.HasPrefix(d.Name(), "."):
			return nil
		case len(files) >= indicators.MaxFiles:
			return fail(exitUsage, "%s has more than %d files: add its folders one by one", name, indicators.MaxFiles)
		}
		files = append(files, p)
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fail(exitNotFound, "%s has no files that are not hidden", name)
	}
	return files, err
}

// addIndicators hands a source over, and its files if it has some.
func (a *app) addIndicators(ctx context.Context, c *client.Client, s *apiv1.IndicatorSource, files []string) (*apiv1.IndicatorSource, error) {
	if _, err := c.Status(ctx, &apiv1.StatusRequest{}); err != nil {
		return nil, err
	}
	stream, err := c.AddIndicators(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&apiv1.AddIndicatorsRequest{Source: s})
	for _, name := range files {
		if err != nil || s.Kind != string(indicators.Kept) {
			break
		}
		if err = a.sendFile(stream, name); err != nil && !errors.Is(err, io.EOF) {
			return nil, errors.Join(err, func() error { _, cerr := stream.CloseAndReceive(); return cerr }())
		}
	}
	// A node that refuses closes the stream: why is in its answer.
	out, cerr := stream.CloseAndReceive()
	if cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, err
	}
	return out.GetSource(), nil
}

func (a *app) sendFile(stream *connect.ClientStreamForClientSimple[apiv1.AddIndicatorsRequest, apiv1.AddIndicatorsResponse], name string) error {
	in := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return absentFile(fmt.Errorf("indicators: %w", err))
		}
		defer f.Close()
		in = f
	}
	buf := make([]byte, partBytes)
	for first := true; ; first = false {
		n, err := io.ReadFull(in, buf)
		if n > 0 || first {
			if serr := stream.Send(&apiv1.AddIndicatorsRequest{Part: buf[:n], Next: first}); serr != nil {
				return serr
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

func refusalsJSON(all []*apiv1.IndicatorRefusal) []map[string]any {
	out := []map[string]any{}
	for _, r := range all {
		out = append(out, map[string]any{"why": r.Why, "count": r.Count, "example": r.Example})
	}
	return out
}

func refused(all []*apiv1.IndicatorRefusal) (n uint64) {
	for _, r := range all {
		n += r.Count
	}
	return n
}

// printSource shows a source; why says what was not taken, and why.
func (a *app) printSource(s *apiv1.IndicatorSource, why bool) error {
	r := s.GetReport()
	if a.json {
		return a.emit(map[string]any{
			"id": s.Id, "name": s.Name, "kind": s.Kind, "location": s.Location, "confidence": s.Confidence, "ttl_ms": s.TtlMs, "exact": s.Exact, "user": s.User, "configured": s.Configured,
			"added": stamp(s.Added), "fetched": stamp(s.Fetched), "visited": stamp(s.Visited), "error": s.Error,
			"read": r.GetRead(), "taken": r.GetTaken(), "duplicate": r.GetDuplicate(), "expired": r.GetExpired(),
			"not_applicable": refusalsJSON(r.GetNotApplicable()), "rejected": refusalsJSON(r.GetRejected()),
		})
	}
	if _, err := fmt.Fprintf(a.out, "%s: %d taken of %d (%d had already, %d expired, %d not applicable, %d rejected)\n", printable(s.Id), r.GetTaken(), r.GetRead(), r.GetDuplicate(), r.GetExpired(), refused(r.GetNotApplicable()), refused(r.GetRejected())); err != nil || !why {
		return err
	}
	for word, of := range map[string][]*apiv1.IndicatorRefusal{"not applicable": r.GetNotApplicable(), "rejected": r.GetRejected()} {
		for _, x := range of {
			if _, err := fmt.Fprintf(a.out, "  %s %d: %s, such as %s\n", word, x.Count, printable(x.Why), printable(x.Example)); err != nil {
				return err
			}
		}
	}
	return nil
}

func newIndicatorsList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "The sources, and what became of what they have", Args: cobra.NoArgs,
		Example: "  omega indicators list\n  omega indicators list --json | jq .rejected",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListIndicators(cmd.Context(), &apiv1.ListIndicatorsRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, s := range r.Sources {
				if a.json {
					if err := a.printSource(s, true); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{s.Id, s.Kind, s.Location, fmt.Sprint(s.GetReport().GetTaken()), fmt.Sprint(refused(s.GetReport().GetNotApplicable())), fmt.Sprint(refused(s.GetReport().GetRejected())), clock(s.Visited), s.Error})
			}
			return a.table([]string{"SOURCE", "KIND", "LOCATION", "TAKEN", "NOT APPLICABLE", "REJECTED", "VISITED", "ERROR"}, rows)
		},
	}
}

func newIndicatorsLookup(a *app) *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use: "lookup VALUE", Aliases: []string{"show"}, Short: "Whether a value is looked for, who says so, and how often it was seen", Args: cobra.ExactArgs(1),
		Long:    "Look a digest, address, prefix, domain, URL or path up as an event would: a domain is found by one it lies in, an address by a prefix. Exit code 5 says that it is not looked for.",
		Example: "  omega indicators lookup 203.0.113.9\n  omega indicators lookup mail.evil.example --json\n  omega indicators lookup evil.sh --kind file:name",
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.LookupIndicator(cmd.Context(), &apiv1.LookupIndicatorRequest{Kind: kind, Value: args[0]})
			if err != nil {
				return err
			}
			if !r.Found {
				return fail(exitNotFound, "%s is not looked for: no source that omega indicators list shows has it", args[0])
			}
			var seen uint64
			for _, s := range r.Sightings {
				seen += s.Count
			}
			end := clock(r.Expires)
			if end == "" {
				end = "as long as the source has it"
			}
			label := r.Label
			if label != "" {
				label = " (" + label + ")"
			}
			return a.say(map[string]any{"asked": args[0], "kind": r.Kind, "value": r.Value, "source": r.Source, "label": r.Label, "confidence": r.Confidence, "expires": stamp(r.Expires), "seen": seen, "sightings": sightingsJSON(r.Sightings)},
				"%s %s: by %s%s, confidence %d, until %s, seen %d times", r.Kind, r.Value, r.Source, label, r.Confidence, end, seen)
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "", "what the value is (default: what it looks like)")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"file:sha256", "file:sha1", "file:md5", "ipv4-addr", "ipv6-addr", "prefix", "domain-name", "url", "path", "file:name"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func sightingJSON(s *apiv1.IndicatorSighting) map[string]any {
	return map[string]any{"kind": s.Kind, "value": s.Value, "source": s.Source, "label": s.Label, "count": s.Count, "first": stamp(s.First), "last": stamp(s.Last)}
}

func sightingsJSON(all []*apiv1.IndicatorSighting) []map[string]any {
	out := []map[string]any{}
	for _, s := range all {
		out = append(out, sightingJSON(s))
	}
	return out
}

func newIndicatorsSightings(a *app) *cobra.Command {
	var limit uint32
	cmd := &cobra.Command{
		Use: "sightings", Short: "What of it was seen on this host, the last first", Args: cobra.NoArgs,
		Example: "  omega indicators sightings --limit 20",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListSightings(cmd.Context(), &apiv1.ListSightingsRequest{Limit: limit})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, s := range r.Sightings {
				if a.json {
					if err := a.emit(sightingJSON(s)); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{clock(s.Last), s.Kind, s.Value, s.Source, s.Label, fmt.Sprint(s.Count), clock(s.First)})
			}
			return a.table([]string{"LAST", "KIND", "VALUE", "SOURCE", "LABEL", "COUNT", "FIRST"}, rows)
		},
	}
	cmd.Flags().Uint32Var(&limit, "limit", 100, "the most that are shown")
	return cmd
}

func newIndicatorsStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "How much is looked for, what it takes, and how much was seen", Args: cobra.NoArgs,
		Example: "  omega indicators status\n  omega indicators status --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListIndicators(cmd.Context(), &apiv1.ListIndicatorsRequest{})
			if err != nil {
				return err
			}
			failed := 0
			for _, s := range r.Sources {
				if s.Error != "" {
					failed++
				}
			}
			if a.json {
				kinds := r.Kinds
				if kinds == nil {
					kinds = map[string]uint64{}
				}
				return a.emit(map[string]any{"indicators": r.Total, "kinds": kinds, "sources": len(r.Sources), "sources_failed": failed, "bytes": r.Bytes, "bytes_limit": r.Budget, "full": r.Full, "sightings": r.Sightings, "sightings_uncounted": r.SightingsUncounted})
			}
			var kinds []string
			for k, n := range r.Kinds {
				kinds = append(kinds, k+" "+strconv.FormatUint(n, 10))
			}
			slices.Sort(kinds)
			return a.say(nil, "%d indicators of %d sources (%d failed): %s; %d of %d MiB; %d sightings", r.Total, len(r.Sources), failed, strings.Join(kinds, ", "), r.Bytes>>20, r.Budget>>20, r.Sightings)
		},
	}
}

func newIndicatorsRefresh(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "refresh [SOURCE]", Short: "Visit a source, or every one, now", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeIndicatorSource,
		Example: "  omega indicators refresh\n  omega indicators refresh taxii-example",
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			id, what := "", "every source"
			if len(args) > 0 {
				id, what = args[0], args[0]
			}
			a.progress("visiting " + what)
			if _, err := c.RefreshIndicators(cmd.Context(), &apiv1.RefreshIndicatorsRequest{Id: id}); err != nil {
				return err
			}
			return a.say(map[string]any{"source": id, "state": "visited"}, "%s: visited", what)
		},
	}
}

func newIndicatorsRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "remove SOURCE", Short: "Look no more for what a source gave", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeIndicatorSource,
		Example: "  omega indicators remove blocklist",
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.RemoveIndicators(cmd.Context(), &apiv1.RemoveIndicatorsRequest{Id: args[0]})
			if err != nil {
				return err
			}
			return a.say(map[string]any{"source": args[0], "state": "removed", "indicators": r.Total}, "%s: removed; %d indicators are left", args[0], r.Total)
		},
	}
}

func (a *app) completeIndicatorSource(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c := a.client()
	defer c.Close()
	r, err := c.ListIndicators(cmd.Context(), &apiv1.ListIndicatorsRequest{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, s := range r.Sources {
		out = append(out, s.Id)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
