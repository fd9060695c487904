package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// recording is a file of events that is being written: OCSF, one a line.
type recording struct {
	out    *bufio.Writer
	close  []func() error // in this order
	events int
}

// newRecording makes the file, which may not be there yet: a recording is evidence, and nothing is written over.
func newRecording(path string) (*recording, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	r := &recording{close: []func() error{f.Sync, f.Close}}
	to := io.Writer(f)
	if strings.HasSuffix(path, ".gz") {
		z := gzip.NewWriter(f)
		to, r.close = z, append([]func() error{z.Close}, r.close...)
	}
	r.out = bufio.NewWriter(to)
	r.close = append([]func() error{r.out.Flush}, r.close...)
	return r, nil
}

func (r *recording) write(line string) error {
	r.events++
	if _, err := fmt.Fprintln(r.out, line); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// Close puts all of it on the disk.
func (r *recording) Close() error {
	var all []error
	for _, f := range r.close {
		all = append(all, f())
	}
	return errors.Join(all...)
}
