package drill

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// Colours by what they mean; each is an SGR sequence.
const (
	plain  = "0"
	bold   = "1"
	dim    = "2"
	bad    = "31"
	good   = "32"
	warn   = "33"
	accent = "36"
)

// screen shows the story. On a terminal, a block of lines at the bottom is drawn again in place; elsewhere nothing
// moves, and a line is printed when it has something new to say.
type screen struct {
	mu    sync.Mutex
	out   io.Writer
	ansi  bool
	drawn int // lines of the block that are on the terminal now
	err   error
}

func (s *screen) paint(color, text string) string {
	if !s.ansi || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func (s *screen) write(text string) {
	if s.out != nil && s.err == nil {
		_, s.err = io.WriteString(s.out, text)
	}
}

// line prints a line below everything; a block above it stays as it is.
func (s *screen) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drawn = 0
	s.write(fmt.Sprintf(format, args...) + "\n")
}

// block draws lines in place of the block drawn before. Without a terminal it does nothing.
func (s *screen) block(lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ansi {
		return
	}
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	for _, l := range lines {
		b.WriteString("\r" + l + "\x1b[K\n")
	}
	s.drawn = len(lines)
	s.write(b.String())
}

const barWidth = 32

// bar is a row of blocks as long as ms is of full, in eighths.
func bar(ms, full float64) string {
	if full <= 0 {
		return ""
	}
	eighths := min(max(int(ms/full*barWidth*8), 1), barWidth*8)
	out := strings.Repeat("█", eighths/8)
	if r := eighths % 8; r > 0 {
		out += string([]rune(" ▏▎▍▌▋▊▉")[r])
	}
	return out
}

// pad fills text with blanks up to width columns; colours do not count.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-len([]rune(text))))
}
