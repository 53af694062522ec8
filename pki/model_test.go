package pki

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// modelBoot is what a boot ought to be, in the words of the rules and not of
// Session: when each thing happened and which tokens are out.
type modelBoot struct {
	id, machine        string
	credential         byte
	opened             time.Time
	superseded, ended  bool
	grants, dones      []Token // in the order of minting
	minted, first      time.Time
	addr               byte
	fetches            int
	lastDone, finished time.Time // of the last done token; of the end
}

// model drives one Grants and what it should answer.
type model struct {
	g      *Grants
	clock  *clock
	boots  []*modelBoot
	opened int
	prefix string
}

func (m *model) pick(t *rapid.T) *modelBoot {
	if len(m.boots) == 0 {
		t.Skip("no boot yet")
	}
	// Mostly the youngest: that one goes somewhere.
	age := rapid.SampledFrom([]int{0, 0, 0, 0, 1, 1, 2, 5}).Draw(t, "age")
	return m.boots[max(0, len(m.boots)-1-age)]
}

func (m *model) open(t *rapid.T) {
	m.opened++ // an id is never used twice
	b := &modelBoot{
		id: fmt.Sprintf("%s-%d", m.prefix, m.opened), machine: m.prefix + rapid.SampledFrom([]string{"x", "y"}).Draw(t, "machine"),
		credential: rapid.SampledFrom([]byte{1, 1, 1, 2}).Draw(t, "credential"), opened: m.clock.Now(),
	}
	require.NoError(t, m.g.Open(t.Context(), b.id, b.machine, "node1", [32]byte{b.credential}))
	for _, former := range m.boots {
		if former.machine == b.machine && !former.ended && !former.superseded {
			former.superseded, former.finished = true, m.clock.Now()
		}
	}
	m.boots = append(m.boots, b)
}

func (m *model) mint(t *rapid.T) {
	b, credential := m.pick(t), rapid.SampledFrom([]byte{1, 1, 1, 2}).Draw(t, "credential")
	want := ""
	switch {
	case credential != b.credential:
		want = CodeGrantOtherCredential
	case b.superseded || b.ended:
		want = CodeGrantBurned
	case b.fetches > 0:
		want = CodeGrantState
	case m.clock.Now().Sub(b.opened) > time.Hour:
		want = CodeGrantExpired
	}
	grant, machine, err := m.g.Mint(t.Context(), b.id, [32]byte{credential})
	require.Equal(t, want, code(t, err))
	require.Equal(t, b.machine, machine)
	if want == "" {
		b.grants, b.minted = append(b.grants, grant), m.clock.Now()
	}
}

func (m *model) redeem(t *rapid.T) {
	b, addr := m.pick(t), rapid.SampledFrom([]byte{1, 1, 1, 2}).Draw(t, "addr")
	tokens := append(slices.Clone(b.grants), append(slices.Clone(b.dones), Token{Boot: b.id, Secret: NewSecret()})...)
	if last := len(b.grants) - 1; last >= 0 {
		tokens = append(tokens, b.grants[last], b.grants[last], b.grants[last], b.grants[last])
	}
	token := rapid.SampledFrom(tokens).Draw(t, "token")
	want, now := "", m.clock.Now()
	switch {
	case len(b.grants) == 0 || !token.Secret.Equal(b.grants[len(b.grants)-1].Secret):
		want = CodeGrantUnknown
	case b.superseded || b.ended:
		want = CodeGrantBurned
	case b.fetches == 0 && now.Sub(b.minted) > 10*time.Minute:
		want = CodeGrantExpired
	case b.fetches == 0:
		b.addr, b.first = addr, now
	case b.addr != addr:
		want = CodeGrantOtherAddress
	case now.Sub(b.first) > 10*time.Minute:
		want = CodeGrantExpired
	case b.fetches >= 5:
		want = CodeGrantExhausted
	}
	s, err := m.g.Redeem(t.Context(), token, testAddr(addr))
	require.Equal(t, want, code(t, err))
	if want == "" {
		b.fetches++
		require.Equal(t, b.fetches, s.Fetches)
		require.Equal(t, b.machine, s.Machine)
	}
}

func (m *model) mintDone(t *rapid.T) {
	b := m.pick(t)
	want := ""
	switch {
	case b.superseded || b.ended:
		want = CodeGrantBurned
	case b.fetches == 0:
		want = CodeGrantState
	}
	token, err := m.g.MintDone(t.Context(), b.id)
	require.Equal(t, want, code(t, err))
	if want == "" {
		b.dones, b.lastDone = append(b.dones, token), m.clock.Now()
	}
}

func (m *model) done(t *rapid.T) {
	b := m.pick(t)
	tokens := append(slices.Clone(b.dones), append(slices.Clone(b.grants), Token{Boot: b.id, Secret: NewSecret()})...)
	i := rapid.IntRange(0, len(tokens)-1).Draw(t, "token")
	want := ""
	switch {
	case i >= len(b.dones) || i < len(b.dones)-5:
		want = CodeGrantUnknown
	case b.ended:
		want = "done"
	case b.superseded:
		want = CodeGrantBurned
	case m.clock.Now().Sub(b.lastDone) > 24*time.Hour:
		want = CodeGrantExpired
	}
	_, err := m.g.Done(t.Context(), tokens[i])
	require.Equal(t, want, code(t, err))
	if want == "" {
		b.ended, b.finished = true, m.clock.Now()
	}
}

func (m *model) wait(t *rapid.T) {
	m.clock.Add(rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 6 * time.Minute, 11 * time.Minute, time.Hour, 13 * time.Hour}).Draw(t, "pause"))
}

// restart forgets all that isn't stored.
func (m *model) restart(*rapid.T) {
	old := &m.g.ledger
	m.g = &Grants{now: m.clock.Now, certs: m.g.certs, ledger: ledger{
		store: old.store, mirror: old.mirror, log: old.log, now: m.clock.Now, memory: map[string]Session{},
	}}
}

// sweep forgets what ended, or could no longer be continued, a day ago.
func (m *model) sweep(t *rapid.T) {
	require.NoError(t, m.g.Sweep(t.Context()))
	m.boots = slices.DeleteFunc(m.boots, func(b *modelBoot) bool {
		end := b.opened.Add(time.Hour)
		switch {
		case b.superseded || b.ended:
			end = b.finished
		case len(b.dones) > 0:
			end = b.lastDone.Add(24 * time.Hour)
		case b.fetches > 0:
			end = b.first.Add(10 * time.Minute)
		case len(b.grants) > 0:
			end = b.minted.Add(10 * time.Minute)
		}
		gone := m.clock.Now().Sub(end) > 24*time.Hour
		if gone {
			_, err := m.g.MintDone(t.Context(), b.id)
			require.Equal(t, CodeGrantUnknown, code(t, err))
		}
		return gone
	})
}

func TestT22_Model(t *testing.T) {
	require.NoError(t, flag.Set("rapid.steps", "60"))
	s := openStore(t, t.TempDir())
	c := &clock{now: start}
	g := openGrants(t, s, c)
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		m := &model{g: g, clock: c, prefix: fmt.Sprintf("r%d", run)}
		t.Repeat(map[string]func(*rapid.T){
			"open": m.open, "mint": m.mint, "redeem": m.redeem, "mintDone": m.mintDone, "done": m.done,
			"wait": m.wait, "restart": m.restart, "sweep": m.sweep,
			"mint again": m.mint, "redeem again": m.redeem, "redeem once more": m.redeem, "mintDone again": m.mintDone,
		})
	})
}
