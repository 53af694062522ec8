package serving

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"
)

// Where a certificate comes from, and which key it has.
const (
	Own   = "own"
	Given = "file"

	ECDSA = "ecdsa"
	RSA   = "rsa"
)

// Status is one certificate of one host name. A name with two has two.
type Status struct {
	Host     string    `json:"host"`
	Answered bool      `json:"answered"`       // a server here answers to it; else it is only covered by a given certificate
	Source   string    `json:"source"`         // own or file
	File     string    `json:"file,omitempty"` // path of a given certificate
	Type     string    `json:"type"`           // ecdsa or rsa; empty: there is none
	NotAfter time.Time `json:"not_after"`      // of the first in the chain to end
	Root     string    `json:"root"`           // SHA-256 in hexadecimal
	Warnings []string  `json:"warnings"`       // what does not work for all, or not for long
}

// Status lists what each host name shows, boot. first.
func (c *Certificates) Status() []Status {
	var all []Status
	s := c.current.Load()
	for _, h := range s.hosts {
		pairs, source := s.given[h.name], Given
		if pairs == nil {
			if !h.needed {
				continue
			}
			pairs, _ = c.ownPairs(s.own[h.name]) // they were parsed before they were signed with
			source = Own
		}
		if len(pairs) == 0 {
			all = append(all, Status{Host: h.name, Answered: true, Source: source, Warnings: c.hostWarnings(s, h, nil)})
		}
		for _, p := range pairs {
			all = append(all, c.status(h, p, source, slices.Concat(c.hostWarnings(s, h, pairs), c.fileWarnings(source))))
		}
	}
	return all
}

func (c *Certificates) status(h host, p *pair, source string, warnings []string) Status {
	sum := sha256.Sum256(p.root().Raw)
	st := Status{
		Host: h.name, Answered: h.needed, Source: source, Type: p.keyType(), Root: hex.EncodeToString(sum[:]),
		NotAfter: firstEnd(p.chain), Warnings: slices.Concat([]string{}, p.warnings(c.cfg.Now()), warnings),
	}
	if source == Given {
		st.File = p.name
		if !h.needed {
			for _, fault := range p.faults(c.cfg.Now()) {
				st.Warnings = append(st.Warnings, fault.Error())
			}
		}
	}
	return st
}

func firstEnd(chain []*x509.Certificate) time.Time {
	end := chain[0].NotAfter
	for _, c := range chain {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end
}

// hostWarnings are about the name and not about one certificate.
func (c *Certificates) hostWarnings(s *selection, h host, pairs []*pair) (all []string) {
	if note := s.notes[h.name]; note != "" {
		all = append(all, note)
	}
	if len(pairs) == 0 || !h.needed {
		return all
	}
	if err := c.tooNew(h, pairs); err != nil {
		all = append(all, err.Error())
	} else if w := kindWarning(pairs); w != "" {
		all = append(all, w)
	}
	return all
}

// fileWarnings say which files are not in use as they lie there.
func (c *Certificates) fileWarnings(source string) []string {
	if text := c.notice.text.Load(); text != nil && source == Given {
		return []string{*text}
	}
	return nil
}
