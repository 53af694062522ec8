package boot

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Script builds an iPXE script line by line. It is the only place where one
// is put together, so that no value, wherever it came from, can add a line, a
// command or a word (T17): a word with a blank, a control character, a quote
// that changes meaning or an unwanted ${…} is an error, found when the script
// is asked for its Bytes.
//
// The grammar is iPXE's (src/core/exec.c, src/image/script.c, 1.21.1): a line
// is split at blanks before settings are expanded, "||", "&&" and ";" stand
// between commands, a word that begins with "#" starts a comment, and a line
// that begins with ":" is a label.
type Script struct {
	lines []string
	errs  []error
}

// Word is one word of a command: literal text, an expanded setting, or several
// of them run together. Make one with Lit, Var or Join.
type Word struct {
	text string
	err  error
}

// Lit is text that iPXE takes as it stands. It must be printable ASCII
// without blanks, not empty, and must not begin an expansion.
func Lit(s string) Word {
	if s == "" || strings.Contains(s, " ") {
		return Word{err: fmt.Errorf("script word %.60q is empty or holds a blank", s)}
	}
	if err := Printable(s); err != nil {
		return Word{err: err}
	}
	return Word{text: s}
}

// Var is the value of an iPXE setting, for example Var("net0/mac", "hexhyp").
// An empty format leaves the value as it is. iPXE expands after it has split
// the line, so a value with blanks stays one word; but it expands the result
// again (T16), so a value that others set wants the format "uristring".
func Var(name, format string) Word {
	if !settingName(name) || (format != "" && !settingName(format)) {
		return Word{err: fmt.Errorf("script setting %q:%q is not a setting's name", name, format)}
	}
	if format != "" {
		name += ":" + format
	}
	return Word{text: "${" + name + "}"}
}

// Join runs words together into one.
func Join(words ...Word) Word {
	var out Word
	for _, w := range words {
		if w.err != nil {
			return w
		}
		if strings.HasSuffix(out.text, "$") && strings.HasPrefix(w.text, "{") {
			return Word{err: errors.New("script words make ${ where they meet")}
		}
		out.text += w.text
	}
	return out
}

// Command is one iPXE command, made by Do's callers with Cmd.
type Command struct {
	text string
	err  error
}

// Cmd is the command name with its words.
func Cmd(name string, words ...Word) Command {
	text := name
	for _, w := range words {
		switch {
		case w.err != nil:
			return Command{err: fmt.Errorf("script command %s: %w", name, w.err)}
		case strings.HasPrefix(w.text, "#"), w.text == "||", w.text == "&&", w.text == ";":
			return Command{err: fmt.Errorf("script command %s: word %q has a meaning of its own", name, w.text)}
		}
		text += " " + w.text
	}
	if strings.HasSuffix(text, `\`) {
		return Command{err: fmt.Errorf(`script command %s ends in \, which joins lines`, name)}
	}
	return Command{text: text}
}

// Echo prints text on the machine's console. Text is printable ASCII; words
// may be put behind it.
func Echo(text string, words ...Word) Command {
	if err := Printable(text); err != nil {
		return Command{err: fmt.Errorf("script command echo: %w", err)}
	}
	var all []Word
	for f := range strings.FieldsSeq(text) {
		all = append(all, Lit(f))
	}
	return Cmd("echo", append(all, words...)...)
}

// Set gives an iPXE setting a value. Without words the value is empty, which
// is not the same as unset: an empty value hides iPXE's default.
func Set(name string, words ...Word) Command {
	bare, format, _ := strings.Cut(name, ":")
	if !settingName(bare) || (format != "" && !settingName(format)) {
		return Command{err: fmt.Errorf("script setting %q is not a setting's name", name)}
	}
	return Cmd("set", append([]Word{{text: name}}, words...)...)
}

// Goto jumps to a label.
func Goto(label string) Command {
	if !settingName(label) {
		return Command{err: fmt.Errorf("script label %q is not a name", label)}
	}
	return Command{text: "goto " + label}
}

// Sleep pauses for whole seconds; it can be cut short by Ctrl-C on the console.
func Sleep(d time.Duration) Command {
	return Command{text: "sleep " + strconv.Itoa(int(d.Seconds()))}
}

// Label marks a place for Goto.
func (s *Script) Label(name string) {
	if !settingName(name) {
		s.errs = append(s.errs, fmt.Errorf("script label %q is not a name", name))
	}
	s.lines = append(s.lines, ":"+name)
}

// Comment adds a line for human readers.
func (s *Script) Comment(text string) {
	if err := Printable(text); err != nil || strings.HasSuffix(text, `\`) {
		s.errs = append(s.errs, fmt.Errorf("script comment %.60q is not one printable line", text))
	}
	s.lines = append(s.lines, "# "+text)
}

// Do adds a command. When it fails, the script ends with its error.
func (s *Script) Do(c Command) {
	s.lines = append(s.lines, c.text)
	s.errs = append(s.errs, c.err)
}

// DoOr adds a command and what to run when it fails.
func (s *Script) DoOr(c, orElse Command) {
	s.lines = append(s.lines, c.text+" || "+orElse.text)
	s.errs = append(s.errs, c.err, orElse.err)
}

// Try adds a command whose failure does not matter.
func (s *Script) Try(c Command) {
	s.lines = append(s.lines, c.text+" ||")
	s.errs = append(s.errs, c.err)
}

// When runs then if cond succeeds; the script goes on either way.
func (s *Script) When(cond, then Command) {
	s.lines = append(s.lines, cond.text+" && "+then.text+" ||")
	s.errs = append(s.errs, cond.err, then.err)
}

// Bytes is the finished script, or all that is wrong with it.
func (s *Script) Bytes() ([]byte, error) {
	if err := errors.Join(s.errs...); err != nil {
		return nil, err
	}
	return []byte("#!ipxe\n" + strings.Join(s.lines, "\n") + "\n"), nil
}

// Printable checks that s is one line of printable ASCII that iPXE would not
// expand.
func Printable(s string) error {
	if strings.Contains(s, "${") {
		return fmt.Errorf("text %.60q holds ${, which iPXE would expand", s)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return fmt.Errorf("text %.60q holds a character that is not printable ASCII", s)
		}
	}
	return nil
}

// settingName accepts what iPXE's setting names, formats and labels are made
// of here: letters, digits, "-", "_", "/" and ".".
func settingName(s string) bool {
	for i := range len(s) {
		c := s[i]
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_/.", c) >= 0
		if !ok {
			return false
		}
	}
	return s != ""
}

// KernelArg is one kernel argument. A quote would join words on the kernel's
// side (Documentation/admin-guide/kernel-parameters.rst), so it is refused, as
// is a leading hyphen, which iPXE would take for an option of its own.
func KernelArg(s string) (Word, error) {
	w := Lit(s)
	switch {
	case w.err != nil:
		return Word{}, w.err
	case strings.Contains(s, `"`):
		return Word{}, fmt.Errorf("kernel argument %.60q holds a quote", s)
	case strings.HasPrefix(s, "-"), strings.HasPrefix(s, "#"), s == "||", s == "&&", s == ";", strings.HasSuffix(s, `\`):
		return Word{}, fmt.Errorf("kernel argument %.60q has a meaning of its own to iPXE", s)
	}
	return w, nil
}
