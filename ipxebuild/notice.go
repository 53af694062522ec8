package ipxebuild

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/nestboot/nestboot/boot"
)

// used are the bases that files of the set hold, in a fixed order.
func (s *Set) used() []held {
	var out []held
	names := []string{nameAMD64, nameEFI, nameLKRN, nameSNP, nameKPXE}
	for _, name := range names {
		if h, ok := s.base(boot.AMD64, name); ok {
			out = append(out, h)
		}
	}
	if h, ok := s.base(boot.ARM64, nameARM64, nameEFI); ok {
		out = append(out, h)
	}
	for _, f := range s.files {
		switch {
		case f.Format == FormatSigned && s.stock.shim != nil && f.Name == s.dir(s.stock.shim.partner):
			signed, _ := s.signedBase()
			out = append(out, *s.stock.shim, signed)
		case f.Name == s.dir(namePXELinux):
			out = append(out, s.stock.syslinux[KindPXELinux], s.stock.syslinux[KindLDLinux])
		case f.Format == FormatISO && s.diskBIOS():
			out = append(out, s.stock.syslinux[KindIsolinux], s.stock.syslinux[KindMBR], s.stock.syslinux[KindLDLinux])
		}
	}
	slices.SortStableFunc(out, func(a, b held) int { return strings.Compare(a.Name, b.Name) })
	return slices.CompactFunc(out, func(a, b held) bool { return a.Name == b.Name && a.SHA256 == b.SHA256 })
}

// notice says whose programs are in the set, under which terms, and where
// their source is. The text of each package's copyright file follows.
func (s *Set) notice() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Artifact set %s: boot programs in these files, their terms and their source\n\n"+
		"Made by nestboot of unmodified stock binaries, in which the trusted root certificate's\n"+
		"fingerprint and the name of a script were replaced; signed programs are as they were.\n", s.cfg.Name)
	for _, g := range s.origins() {
		fmt.Fprintf(&b, "\n%s %s\n  files:   %s\n  terms:   %s\n  source:  %s\n",
			g.from.Origin.Package, g.from.Origin.Version, strings.Join(g.names(), ", "), g.from.Origin.License, g.from.Origin.Source)
	}
	s.terms(&b)
	return b.Bytes()
}

// terms writes the texts of the copyright files, each once.
func (s *Set) terms(b *bytes.Buffer) {
	const line = "========================================================================"
	var texts []string
	packages := map[string][]string{}
	for _, g := range s.origins() {
		text := strings.TrimRight(string(g.from.License), "\n")
		if text == "" {
			text = "No copyright file came with it: see the source."
		}
		if _, ok := packages[text]; !ok {
			texts = append(texts, text)
		}
		packages[text] = append(packages[text], g.from.Origin.Package+" "+g.from.Origin.Version)
	}
	for _, text := range texts {
		fmt.Fprintf(b, "\n%s\nTerms of %s\n\n%s\n", line, strings.Join(packages[text], ", "), text)
	}
}

// group is the bases that came with one bundle.
type group struct {
	from  *Bundle
	bases []held
}

func (g group) names() []string {
	out := make([]string, 0, len(g.bases))
	for _, h := range g.bases {
		out = append(out, h.Name)
	}
	return out
}

// origins groups the bases in use by bundle, by the package's name.
func (s *Set) origins() []group {
	var out []group
	for _, h := range s.used() {
		i := slices.IndexFunc(out, func(g group) bool { return g.from == h.from })
		if i < 0 {
			i = len(out)
			out = append(out, group{from: h.from})
		}
		out[i].bases = append(out[i].bases, h)
	}
	slices.SortFunc(out, func(a, b group) int { return strings.Compare(a.from.Origin.Package, b.from.Origin.Package) })
	return out
}
