package boot

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestScriptGolden(t *testing.T) {
	s := &Script{}
	s.Comment("a comment")
	s.Do(Set("crosscert"))
	s.Do(Set("cert:hexraw", Lit("30820122")))
	s.Label("retry")
	s.DoOr(Cmd("dhcp"), Goto("retry"))
	s.Do(Cmd("chain", Join(Lit("https://h/b?u="), Var("uuid", ""), Lit("&s="), Var("serial", "uristring"))))
	s.When(Cmd("isset", Var("x", "")), Cmd("exit"))
	s.Try(Sleep(1500 * time.Millisecond))
	s.Do(Echo("two words:", Var("errno", "")))
	got, err := s.Bytes()
	require.NoError(t, err)
	golden(t, "builder.ipxe", got)
}

func TestT17_ScriptRefusesWhatWouldAddToIt(t *testing.T) {
	for name, c := range map[string]Command{
		"newline":           Cmd("kernel", Lit("a\nboot")),
		"blank":             Cmd("kernel", Lit("a b")),
		"empty":             Cmd("kernel", Lit("")),
		"expansion":         Cmd("kernel", Lit("${x}")),
		"expansion by join": Cmd("kernel", Join(Lit("$"), Lit("{x}"))),
		"join of setting":   Cmd("kernel", Join(Lit("a$"), Lit("{"), Var("x", ""))),
		"control":           Cmd("kernel", Lit("a\x00b")),
		"high byte":         Cmd("kernel", Lit("a\xffb")),
		"or":                Cmd("kernel", Lit("||")),
		"and":               Cmd("kernel", Lit("&&")),
		"comment":           Cmd("kernel", Lit("#x")),
		"line join":         Cmd("kernel", Lit(`x\`)),
		"setting's name":    Cmd("kernel", Var("a}b", "")),
		"setting's format":  Cmd("kernel", Var("a", "b}${c")),
		"label":             Goto("a b"),
		"set's name":        Set("a b", Lit("x")),
		"echo":              Echo("a\nb"),
	} {
		t.Run(name, func(t *testing.T) {
			s := &Script{}
			s.Do(c)
			_, err := s.Bytes()
			require.Error(t, err)
		})
	}
	s := &Script{}
	s.Comment("a\nboot")
	s.Label("x y")
	_, err := s.Bytes()
	require.ErrorContains(t, err, "one printable line")
	require.ErrorContains(t, err, "label")
}

// FuzzT17_Script checks that parse(render(x)) == x for every command that the
// builder lets through, by iPXE's own rules.
func FuzzT17_Script(f *testing.F) {
	f.Add("https://h/k", "console=ttyS0", "text of an echo", "net0/mac")
	f.Add("a\nboot", "||", "${x}", "uuid")
	f.Add(`x\`, "#", "&& boot", "a}b")
	f.Fuzz(func(t *testing.T, url, arg, text, setting string) {
		s := &Script{}
		s.DoOr(Cmd("kernel", Lit(url), Lit(arg), Var(setting, "")), Goto("failed"))
		s.Do(Echo(text))
		got, err := s.Bytes()
		if err != nil {
			return
		}
		require.Equal(t, [][][]string{
			{{"kernel", url, arg, "${" + setting + "}"}, {"goto", "failed"}},
			{append([]string{"echo"}, strings.Fields(text)...)},
		}, parseIPXE(t, string(got)))
	})
}

// parseIPXE reads a script as iPXE 1.21.1 does: lines, then commands between
// terminators, then words. A label, a comment or a joined line is a failure
// here, because the caller wrote none.
func parseIPXE(t *testing.T, script string) (lines [][][]string) {
	t.Helper()
	body, ok := strings.CutPrefix(script, "#!ipxe\n")
	require.True(t, ok)
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		require.False(t, strings.HasSuffix(line, `\`), "joined line %q", line)
		require.False(t, strings.HasPrefix(line, ":"), "label %q", line)
		commands := [][]string{{}}
		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\n\v\f\r", r) }) {
			require.False(t, strings.HasPrefix(word, "#"), "comment in %q", line)
			if word == "||" || word == "&&" || word == ";" {
				commands = append(commands, []string{})
				continue
			}
			commands[len(commands)-1] = append(commands[len(commands)-1], word)
		}
		lines = append(lines, commands)
	}
	return lines
}
