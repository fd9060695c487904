package bpf

import (
	"slices"
	"strings"
)

// interpreter says how one reads its options, as far as it takes to know which argument is the file that it runs. An option
// that is not listed, and each that has it run something else than a file, means that no file is known: none is guessed.
type interpreter struct {
	plain    string   // letters that stand for themselves
	takes    string   // letters with a value: the rest of the argument, or the next one
	next     string   // letters with a value that is always the next argument
	rest     string   // letters whose value, if any, is the rest of the argument
	digits   string   // letters that digits may follow
	file     string   // letters that take the file to run
	long     []string // long options without a value, or with one after "="
	longNext []string // long options whose value is the next argument
	verbs    []string // first arguments that are no file
	plus     bool     // options may begin with + as well
	stdin    bool     // after -- there is no file
}

// interpreters is a table, never changed.
var interpreters = [...]interpreter{
	{plain: "abefhiklmnprtuvxBCEHPTVD", next: "oO", plus: true, longNext: []string{"--rcfile", "--init-file"},
		long: []string{"--login", "--noprofile", "--norc", "--posix", "--verbose", "--restricted", "--noediting", "--debugger"}},
	{plain: "bBdEiIOPqRsSuvx", takes: "WX", longNext: []string{"--check-hash-based-pycs"}},
	{plain: "acnpsStTuUwWXf", takes: "I", rest: "MmFix", digits: "0l"},
	{plain: "aclnpsUwS", takes: "IrEC", rest: "xiF", digits: "W0", long: []string{"--enable", "--disable", "--jit", "--yjit"}},
	{plain: "nqCeH", takes: "dcz", file: "f", stdin: true},
	{takes: "r", verbs: []string{"inspect", "run"}, longNext: []string{"--require", "--import", "--loader"},
		long: []string{"--no-warnings", "--trace-warnings", "--enable-source-maps", "--expose-gc", "--inspect", "--inspect-brk", "--max-old-space-size", "--stack-size"}},
	{plain: "iEW", takes: "el"},
}

// interpreterOf finds how the program exe reads its options; nil where it is none that is known.
func interpreterOf(name string) *interpreter {
	switch strings.TrimRight(name, "0123456789.") {
	case "sh", "dash", "bash", "ash", "rbash", "ksh", "mksh", "zsh":
		return &interpreters[0]
	case "python", "pypy":
		return &interpreters[1]
	case "perl":
		return &interpreters[2]
	case "ruby":
		return &interpreters[3]
	case "php", "php-cli":
		return &interpreters[4]
	case "node", "nodejs":
		return &interpreters[5]
	case "lua", "luajit":
		return &interpreters[6]
	}
	return nil
}

// maxOptions is how many arguments are looked at before the file.
const maxOptions = 64

// givenScript is the file that an interpreter was told to run by its arguments (joined by NUL, its own name first), as it was
// told; empty where exe is no interpreter that is known, where it was given a command, a module or its input, and where the
// arguments leave it open. It allocates nothing. Where cut, the last argument is not whole and not trusted.
func givenScript(exe, args string, cut bool) string {
	name := exe[strings.LastIndexByte(exe, '/')+1:]
	called, args, more := strings.Cut(args, "\x00")
	if name == "busybox" { // is what it is called, or what its first argument calls it
		if name = called[strings.LastIndexByte(called, '/')+1:]; name == "busybox" {
			name, args, more = strings.Cut(args, "\x00")
		}
		if name != "sh" && name != "ash" {
			return ""
		}
	}
	in := interpreterOf(name)
	if in == nil {
		return ""
	}
	var arg string
	step := func() bool {
		if !more {
			return false
		}
		arg, args, more = strings.Cut(args, "\x00")
		return more || !cut
	}
	for n := 0; n < maxOptions && step(); n++ {
		switch {
		case arg == "":
			return ""
		case arg[0] != '-' && (arg[0] != '+' || !in.plus):
			if slices.Contains(in.verbs, arg) {
				return ""
			}
			return arg
		case arg == "-": // of a shell the end of its options, of the others their input
			if in.plus && step() {
				return arg
			}
			return ""
		case arg == "--":
			if !in.stdin && step() {
				return arg
			}
			return ""
		case strings.HasPrefix(arg, "--"):
			option, _, valued := strings.Cut(arg, "=")
			switch {
			case slices.Contains(in.long, option), valued && slices.Contains(in.longNext, option):
			case slices.Contains(in.longNext, option):
				if !step() {
					return ""
				}
			default:
				return ""
			}
		default:
			file, ok := in.cluster(arg[1:], step)
			if !ok {
				return ""
			}
			if file {
				return arg
			}
		}
	}
	return ""
}

// cluster reads letters behind one dash, and with step the values that follow; ok says that all of them are known. Where
// one took the file, file is true and that file is the argument that step came to.
func (in *interpreter) cluster(letters string, step func() bool) (file, ok bool) {
	for i := 0; i < len(letters); i++ {
		c := letters[i]
		has := func(set string) bool { return strings.IndexByte(set, c) >= 0 }
		last := i == len(letters)-1
		switch {
		case has(in.plain):
		case has(in.digits):
			for i+1 < len(letters) && letters[i+1] >= '0' && letters[i+1] <= '9' {
				i++
			}
		case has(in.next):
			if !step() {
				return false, false
			}
		case has(in.rest):
			return false, true
		case has(in.takes):
			return false, !last || step()
		case has(in.file):
			return true, last && step()
		default:
			return false, false
		}
	}
	return false, true
}
