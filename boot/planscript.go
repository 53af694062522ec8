package boot

import (
	"fmt"
	"net/url"
	"strings"
)

// Endpoint is where a script finds the rest of its boot.
type Endpoint struct {
	Base string // scheme, host and port of the name that asks for client certificates, without a trailing slash
	Boot string // id of this boot
}

// SettingLocal is the iPXE setting by which a boot script tells the script of
// the artifact to leave iPXE.
const SettingLocal = "nestboot-local"

// Script is the iPXE script that carries the plan out. It is chained to by the
// script of the artifact, which asks again when this one comes back: with
// success at once (this script has waited already), with a failure after a
// pause of its own.
func (p Plan) Script(at Endpoint) ([]byte, error) {
	s := &Script{}
	switch p.Action {
	case ActBoot:
		p.bootScript(s, at)
	case ActLocal:
		s.Do(Echo("nestboot: " + p.Reason))
		s.Do(Set(SettingLocal, Lit("1")))
	case ActQueue:
		s.Do(Echo(fmt.Sprintf("nestboot: %s; trying again in %.0f seconds", p.Reason, p.Retry.Seconds())))
		s.Try(Sleep(p.Retry))
	default:
		s.Do(Echo("nestboot: " + p.Reason + " (" + p.Code + ")"))
		if p.Machine.UUID != "" {
			s.Do(Echo("nestboot: machine " + p.Machine.UUID + ", boot " + at.Boot))
		}
		s.Do(Echo("nestboot: asking again in " + p.Retry.String()))
		s.Try(Sleep(p.Retry))
	}
	return s.Bytes()
}

func (p Plan) bootScript(s *Script, at Endpoint) {
	images := at.Base + "/ipxe/images/" + url.PathEscape(p.Image.Name) + "/"
	failed := Goto("failed")
	s.Do(Echo("nestboot: " + p.Machine.Name + " " + p.Reason + ", boot " + at.Boot))
	kernel := []Word{Lit("--name"), Lit("vmlinuz"), Lit(images + url.PathEscape(p.Image.Kernel.Name))}
	for _, a := range p.Image.Args {
		w, err := KernelArg(a)
		kernel = append(kernel, Word{text: w.text, err: err})
	}
	s.DoOr(Cmd("kernel", kernel...), failed)
	for _, f := range p.Image.Initrds {
		s.DoOr(Cmd("initrd", Lit(images+url.PathEscape(f.Name))), failed)
	}
	// The machine's own initrd comes last, so that it is unpacked over the others.
	s.DoOr(Cmd("initrd", Lit(at.Base+"/ipxe/initrd/"+url.PathEscape(at.Boot))), failed)
	s.DoOr(Cmd("boot"), failed)
	s.Label("failed")
	s.Do(Echo("nestboot: boot "+at.Boot+" of "+p.Machine.Name+" failed:", Var("errno", "")))
	s.Try(Cmd("imgfree"))
	s.Do(Cmd("exit", Lit("1")))
}

// Refusal is the script for a caller that is known but may not boot.
func Refusal(code, reason string) Plan {
	words := strings.Fields(onePrintableLine(reason[:min(len(reason), maxReason)]))
	for i, w := range words {
		if w == "||" || w == "&&" || w == ";" || w[0] == '#' || strings.HasSuffix(w, `\`) {
			words[i] = "'" + w + "'" // no meaning left to iPXE
		}
	}
	return Plan{}.refuse(code, strings.Join(words, " "))
}

// maxReason keeps a reason on a few lines of a console.
const maxReason = 200

// onePrintableLine makes any text fit for a console line.
func onePrintableLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return strings.ReplaceAll(s, "${", "$ {")
}
