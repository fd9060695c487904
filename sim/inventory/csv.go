package inventory

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/omega-mesh/omega/sim/world"
)

// maxTable bounds an inventory, in bytes.
const maxTable = 32 << 20

// columns are those of an inventory that are read; the others are named in a warning.
func columns() []string {
	return []string{"name", "address", "zone", "value", "escalate", "detect", "false_rate", "services", "decoys", "accounts"}
}

// readCSV reads an inventory (RFC 4180) whose first line names the columns: name, address, zone, value, escalate, detect,
// false_rate, services ("ssh/22 http/80"), decoys ("2323 5900"), accounts ("ann backup/root"). Either name or address
// must be there. It gives the hosts and the columns that were not read.
func readCSV(r io.Reader) ([]host, []string, error) {
	limited := &io.LimitedReader{R: r, N: maxTable + 1}
	table := csv.NewReader(limited)
	table.ReuseRecord = true
	table.TrimLeadingSpace = true
	head, err := table.Read()
	if err != nil {
		return nil, nil, fmt.Errorf("inventory: %w", err)
	}
	names := make([]string, len(head))
	var unread []string
	for i, n := range head {
		n = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(n, "\ufeff")))
		switch {
		case slices.Contains(names[:i], n) && n != "":
			return nil, nil, fmt.Errorf("inventory: two columns are called %q", clip(n))
		case !slices.Contains(columns(), n):
			known := map[string]bool{}
			for _, c := range columns() {
				known[c] = true
			}
			unread = append(unread, fmt.Sprintf("%q%s", clip(n), world.Nearest(n, known)))
		}
		names[i] = n
	}
	if !slices.Contains(names, "name") && !slices.Contains(names, "address") {
		return nil, nil, errors.New("inventory: the first line names neither a column name nor a column address")
	}
	var hosts []host
	for {
		row, err := table.Read()
		if limited.N <= 0 {
			return nil, nil, fmt.Errorf("inventory: larger than %d bytes", maxTable)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, fmt.Errorf("inventory: %w", err)
		}
		h := host{products: map[uint16]string{}}
		for i, cell := range row {
			if err := h.set(names[i], strings.TrimSpace(cell)); err != nil {
				line, _ := table.FieldPos(i)
				return nil, nil, fmt.Errorf("inventory: line %d, column %s: %w", line, names[i], err)
			}
		}
		if hosts = append(hosts, h); len(hosts) > world.MaxHosts {
			return nil, nil, fmt.Errorf("inventory: more than %d hosts", world.MaxHosts)
		}
	}
	if len(hosts) == 0 {
		return nil, nil, errors.New("inventory: no host")
	}
	return hosts, unread, nil
}

func (h *host) set(column, cell string) error {
	if cell == "" {
		return nil
	}
	fraction := func(to *float64) error {
		v, err := strconv.ParseFloat(cell, 64)
		if err != nil {
			return fmt.Errorf("%q is no number", clip(cell))
		}
		*to = v
		return nil
	}
	port := func(text string) (uint16, error) {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%q is no port", clip(text))
		}
		return uint16(n), nil
	}
	switch column {
	case "name":
		h.Name = cell
	case "address":
		h.Address = cell
	case "zone":
		h.Zone = cell
	case "value":
		return fraction(&h.Value)
	case "escalate":
		return fraction(&h.Escalate)
	case "detect":
		return fraction(&h.Detect)
	case "false_rate":
		return fraction(&h.FalseRate)
	case "services":
		for _, f := range strings.Fields(cell) {
			name, number, ok := strings.Cut(f, "/")
			if !ok {
				name, number = "", f
			}
			p, err := port(number)
			if err != nil {
				return err
			}
			if _, again := h.products[p]; again || len(h.Services) == world.MaxServices {
				return fmt.Errorf("port %d again, or more than %d services", p, world.MaxServices)
			}
			h.products[p] = name
			h.Services = append(h.Services, world.Service{Name: clip(name), Port: p})
		}
	case "decoys":
		for _, f := range strings.Fields(cell) {
			p, err := port(f)
			if err != nil {
				return err
			}
			h.Decoys = append(h.Decoys, p)
		}
	case "accounts":
		for _, f := range strings.Fields(cell) {
			name, root := strings.CutSuffix(f, "/root")
			h.Accounts = append(h.Accounts, world.Account{Name: name, Root: root})
		}
	}
	return nil
}
