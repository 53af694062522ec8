package links

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/pki"
)

func TestLinkLivesAsItWasMade(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	chain, first := create(t, l, Spec{Kind: Chain, Name: "edge", Machines: []string{strings.ToUpper(uuidA)}, Protocols: []string{HTTPS, HTTP}})
	uefi, second := create(t, l, Spec{Kind: UEFI, Name: "edge", Set: 7, ExpiresAt: later(time.Hour)})
	require.Equal(t, Link{
		ID: 1, Created: start, nonce: chain.nonce, digest: chain.digest,
		Spec: Spec{Kind: Chain, Name: "edge", Protocols: []string{HTTPS, HTTP}, Machines: []string{uuidA}},
	}, chain)
	require.Equal(t, []string{HTTPS}, uefi.Protocols)
	require.NotEqual(t, first, second)
	for range 2 {
		require.Equal(t, []Link{chain}, l.List(Chain))
		require.Equal(t, []Link{uefi}, l.OfSet(7))
		require.Empty(t, l.OfSet(8))
		got, ok := l.Get(UEFI, uefi.ID)
		require.True(t, ok)
		require.Equal(t, uefi, got)
		require.Equal(t, second, l.Token(got).Encode())
		_, ok = l.Get(Chain, 2)
		require.False(t, ok)

		id, link, err := l.Find(Chain, first, HTTP, start)
		require.NoError(t, err)
		require.Equal(t, pki.Identity{Kind: Chain, ID: 1, Name: "edge", Machines: []string{uuidA}, Fingerprint: chain.digest}, id)
		require.Equal(t, chain, link)
		id, link, err = l.Find(UEFI, second, HTTPS, start)
		require.NoError(t, err)
		require.Equal(t, pki.Identity{Kind: UEFI, ID: 1, Name: "edge", Fingerprint: uefi.digest, NotAfter: start.Add(time.Hour)}, id)
		require.Equal(t, uefi, link)

		w.reopen(enough)
		l = w.open()
	}
	require.Contains(t, w.logged(), "url was made")
}

func TestFaultsOfASpec(t *testing.T) {
	many := make([]string, maxMachines+1)
	for i := range many {
		many[i] = fmt.Sprintf("4c4c4544-0042-3510-8052-%012d", i)
	}
	tooLate := time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		name string
		spec Spec
		want string
	}{
		{"nothing", Spec{}, `name: is missing; kind: "" is neither url nor uefi-url`},
		{"long name", Spec{Kind: Chain, Name: strings.Repeat("ä", 43)}, "name: has 43 characters, want 42 at most"},
		{"longest name", Spec{Kind: Chain, Name: strings.Repeat("ä", 42)}, ""},
		{"escape", Spec{Kind: Chain, Name: "a\x1b[2J"}, `name: "a\x1b[2J" holds characters that cannot be printed`},
		{"newline", Spec{Kind: Chain, Name: "a\nb"}, `name: "a\nb" holds characters that cannot be printed`},
		{"right to left", Spec{Kind: Chain, Name: "a\u202eb"}, `name: "a\u202eb" holds characters that cannot be printed`},
		{"not utf-8", Spec{Kind: Chain, Name: "a\xff"}, `name: "a\xff" holds characters that cannot be printed`},
		{"blank", Spec{Kind: Chain, Name: "a "}, `name: "a " begins or ends with a blank`},
		{"blank inside", Spec{Kind: Chain, Name: "rack 1, süd / $$"}, ""},
		{"no set", Spec{Kind: UEFI, Name: "a"}, "set: a UEFI HTTP Boot URL belongs to an artifact set: give its number"},
		{"gone", Spec{Kind: UEFI, Name: "a", Set: 9}, "set: there is no artifact set 9"},
		{"a set", Spec{Kind: Chain, Name: "a", Set: 1}, "set: a chain URL belongs to no artifact set: leave it out"},
		{"over", Spec{Kind: Chain, Name: "a", ExpiresAt: later(0)}, "expires_at: 2026-10-01T12:00:00Z is over: want a time to come"},
		{"year 10000", Spec{Kind: Chain, Name: "a", ExpiresAt: &tooLate}, "expires_at: the year 10000 has more than four digits: leave it out for a URL without an end"},
		{"gopher", Spec{Kind: Chain, Name: "a", Protocols: []string{"gopher", HTTP, HTTP}}, `protocols: "gopher" is neither https nor http; protocols: http is there twice`},
		{"machines", Spec{Kind: Chain, Name: "a", Machines: []string{"x", uuidA, strings.ToUpper(uuidA)}}, `machines: uuid "x" is not a UUID like ` + uuidA + `; machines: machine ` + uuidA + ` is there twice`},
		{"many machines", Spec{Kind: Chain, Name: "a", Machines: many}, "machines: 1001 are more than 1000: make one URL per rack"},
		{"machines of firmware", Spec{Kind: UEFI, Name: "a", Set: 1, Machines: many[:1]}, "machines: firmware does not say which machine it is in, so only chain URLs can be limited to machines"},
	}
	w := newWorld(t)
	w.gone[9] = true
	l := w.open()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			link, err := l.Create(t.Context(), tt.spec)
			if tt.want == "" {
				require.NoError(t, err)
				_, err := l.Revoke(t.Context(), link.Kind, link.ID)
				require.NoError(t, err)
				return
			}
			var invalid *Invalid
			require.ErrorAs(t, err, &invalid)
			require.EqualError(t, invalid, tt.want)
			for _, f := range invalid.Faults {
				require.Equal(t, CodeInvalid, f.Code)
			}
		})
	}
	require.Empty(t, l.List(Chain))
}

func TestNamesAreUnique(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	create(t, l, Spec{Kind: Chain, Name: "Süd"})
	create(t, l, Spec{Kind: UEFI, Name: "süd", Set: 1})
	create(t, l, Spec{Kind: UEFI, Name: "süd", Set: 2})
	for _, spec := range []Spec{{Kind: Chain, Name: "SÜD"}, {Kind: UEFI, Name: "SÜD", Set: 2}} {
		_, err := l.Create(t.Context(), spec)
		require.Equal(t, &Invalid{[]Fault{{"name", CodeTaken, "has already been taken"}}}, err)
	}
	_, err := l.Revoke(t.Context(), Chain, 1)
	require.NoError(t, err)
	link, _ := create(t, l, Spec{Kind: Chain, Name: "SÜD"})
	require.Equal(t, int64(2), link.ID, "the name is free, the number is not")
}

// TestT13_TokenOpensItsOwnLink: neither another kind nor another number, and
// nothing that is nearly a token.
func TestT13_TokenOpensItsOwnLink(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	_, chain := create(t, l, Spec{Kind: Chain, Name: "a"})
	_, uefi := create(t, l, Spec{Kind: UEFI, Name: "a", Set: 1})
	require.Empty(t, found(t, l, Chain, chain, HTTPS, start))
	require.Empty(t, found(t, l, UEFI, uefi, HTTPS, start))
	flipped := []byte(chain)
	flipped[20] ^= 1
	for name, token := range map[string]string{
		"other kind": uefi, "empty": "", "cut": chain[:42], "longer": chain + "A", "blank": " " + chain, "newline": chain[:42] + "\n",
		"flipped": string(flipped), "folded": strings.ToLower(chain), "padded": chain + "=", "the id": "1",
	} {
		require.Equal(t, pki.CodeUnknownToken, found(t, l, Chain, token, HTTPS, start), name)
	}
	require.Equal(t, pki.CodeUnknownToken, found(t, l, UEFI, chain, HTTPS, start))
	require.Equal(t, pki.CodeUnknownToken, found(t, l, pki.KindSet, chain, HTTPS, start))
	require.Equal(t, pki.CodeUnknownToken, found(t, l, "", "url/"+chain, HTTPS, start))
}

func TestLinksAreBounded(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	w.fill(l, maxLinks-1, Spec{Kind: Chain}, func(int, *record) {})
	w.fill(l, 5, Spec{Kind: Chain}, func(_ int, r *record) { r.Revoked = start })
	create(t, l, Spec{Kind: Chain, Name: "last"})
	_, err := l.Create(t.Context(), Spec{Kind: Chain, Name: "one more"})
	require.EqualError(t, err, "name: there are 1000 URLs already: revoke one first")
	create(t, l, Spec{Kind: UEFI, Name: "another kind", Set: 1})
	_, err = l.Revoke(t.Context(), Chain, 1)
	require.NoError(t, err)
	create(t, l, Spec{Kind: Chain, Name: "one more"})
}

func TestConsequence(t *testing.T) {
	for _, tt := range []struct {
		spec Spec
		want string
	}{
		{Spec{Kind: Chain, Protocols: []string{HTTPS}}, "whoever has this URL can boot as any machine and is given its configuration"},
		{Spec{Kind: Chain, Protocols: []string{HTTPS, HTTP}, Machines: []string{uuidA}}, "whoever has this URL, or sees it pass by on the network, since plain HTTP is allowed, can boot as machine " + uuidA + " and is given its configuration"},
		{Spec{Kind: Chain, Machines: []string{uuidA, uuidB}}, "whoever has this URL can boot as any of 2 machines and is given its configuration"},
		{Spec{Kind: UEFI, Protocols: []string{HTTP}}, "whoever has this URL, or sees it pass by on the network, since plain HTTP is allowed, can read the files of this artifact set with the private key in them, unless it is keyless, and boot as one of its machines"},
	} {
		require.Equal(t, tt.want, tt.spec.Consequence())
	}
}

// TestDamagedRecordsStopNobody: a damaged record lets no token pass, and holds
// neither its name nor the start up.
func TestDamagedRecordsStopNobody(t *testing.T) {
	w := newWorld(t)
	l := w.open()
	damaged, token := create(t, l, Spec{Kind: Chain, Name: "a"})
	_, good := create(t, l, Spec{Kind: Chain, Name: "b"})
	other, _ := create(t, l, Spec{Kind: UEFI, Name: "b", Set: 1})
	entry, ok := l.mirror.Get(recordKey(UEFI, other.digest))
	require.True(t, ok)
	for key, value := range map[string]string{
		recordKey(Chain, damaged.digest): "{",
		recordPrefix + "x":               "{}",
		recordPrefix + "url/x":           `{"id":9,"kind":"url"}`,
		recordKey(Chain, other.digest):   string(entry.Value), // of the other kind
		usePrefix + "url/2":              "{",
		recordKey(Chain, pki.Digest{1})[:len("links/url/")] + strings.Repeat("Z", 64): `{"id":9,"kind":"url"}`,
	} {
		_, err := w.store.Put(t.Context(), key, []byte(value))
		require.NoError(t, err)
	}
	l = w.open()
	require.Contains(t, w.logged(), "the record of a URL is damaged: its token is refused, make another URL")
	require.Contains(t, w.logged(), "the uses of a url are damaged")
	require.Equal(t, pki.CodeUnknownToken, found(t, l, Chain, token, HTTPS, start))
	require.Empty(t, found(t, l, Chain, good, HTTPS, start))
	require.Len(t, l.List(Chain), 1)
	_, err := l.Revoke(t.Context(), Chain, damaged.ID)
	require.ErrorIs(t, err, ErrUnknown)
	create(t, l, Spec{Kind: Chain, Name: "a"})

	_, err = w.store.Put(t.Context(), lastIDKey(Chain), []byte("x"))
	require.NoError(t, err)
	_, err = l.Create(t.Context(), Spec{Kind: Chain, Name: "c"})
	require.ErrorContains(t, err, `last url number "x" is damaged`)
}
