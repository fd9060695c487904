package node

import (
	"bytes"
	"io"
	"log/slog"
	"regexp"

	"github.com/omega-mesh/omega/node/config"
)

// newLog makes the node's only logger. Whatever a part writes to it, a join token never reaches the journal.
func newLog(w io.Writer, cfg *config.Config) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(cfg.LogLevel)) // Validate has seen it
	out, opt := redacting(w), &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, opt))
	}
	return slog.New(slog.NewTextHandler(out, opt))
}

// redactor takes tokens out of what passes. slog hands it one whole record a call, so none is split.
type redactor struct {
	w     io.Writer
	token *regexp.Regexp
}

func redacting(w io.Writer) io.Writer {
	return &redactor{w: w, token: regexp.MustCompile(`(?i)omega1[a-z2-7]{8,}`)}
}

func (r *redactor) Write(p []byte) (int, error) {
	if bytes.Contains(bytes.ToLower(p), []byte("omega1")) {
		if _, err := r.w.Write(r.token.ReplaceAll(p, []byte("omega1[redacted]"))); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return r.w.Write(p)
}
