package ignition

import (
	"bytes"
	"net/url"
	"slices"
	"sync/atomic"
)

// form is a rendered config with gaps where two machines differ, so that a
// machine costs a copy and not a run of Ignition's parser. It is made of a
// config that passed the parser, and the gaps take values of an alphabet that
// needs no escaping in JSON, so what is filled in is a config, too.
type form struct {
	doneURL string
	rootPEM []byte
	parts   [3][]byte // before, between and behind the gaps
	// nameFirst tells which gap comes first.
	nameFirst bool
}

// What stands in the gaps while a form is made. A base that holds one of them
// by chance has no form.
const (
	nameGap  = "nestboot-gap-7f3a9c"
	tokenGap = "nestboot-gap-c51e08"
)

// forms holds the form that was made last: a base is rendered for one server.
type forms struct{ last atomic.Pointer[form] }

// render fills the form for v in, or returns nil where there is none. v was
// checked; whole renders a config at length.
func (f *forms) render(v Values, whole func(Values) ([]byte, error)) ([]byte, error) {
	now := f.last.Load()
	if now == nil || now.doneURL != v.Done.URL || !bytes.Equal(now.rootPEM, v.RootPEM) {
		gaps := v
		gaps.Hostname, gaps.Done.Token = nameGap, tokenGap
		raw, err := whole(gaps)
		if err != nil {
			return nil, err
		}
		now = newForm(raw, v)
		f.last.Store(now)
	}
	return now.fill(v), nil
}

// newForm cuts a config at its gaps. One that does not have each of them once
// gives a form that is never filled in.
func newForm(raw []byte, v Values) *form {
	f := &form{doneURL: v.Done.URL, rootPEM: slices.Clone(v.RootPEM)}
	if bytes.Count(raw, []byte(nameGap)) != 1 || bytes.Count(raw, []byte(tokenGap)) != 1 {
		return f
	}
	first, second := []byte(nameGap), []byte(tokenGap)
	if f.nameFirst = bytes.Index(raw, first) < bytes.Index(raw, second); !f.nameFirst {
		first, second = second, first
	}
	before, rest, _ := bytes.Cut(raw, first)
	between, behind, _ := bytes.Cut(rest, second)
	f.parts = [3][]byte{before, between, behind}
	return f
}

func (f *form) fill(v Values) []byte {
	if f.parts[0] == nil {
		return nil
	}
	first, second := v.Hostname, url.PathEscape(v.Done.Token)
	if !f.nameFirst {
		first, second = second, first
	}
	return slices.Concat(f.parts[0], []byte(first), f.parts[1], []byte(second), f.parts[2])
}
