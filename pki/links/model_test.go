package links

import (
	"flag"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// modelLink is what a link ought to be, in the words of the rules.
type modelLink struct {
	Link
	token            string
	revoked          time.Time
	written          bool  // the revocation outlives a restart
	uses, saved      int64 // counted; of these written down
	lastUse, savedAt time.Time
}

func (m *modelLink) live() bool { return m.revoked.IsZero() || !m.written }

// model drives one Links and what it should answer.
type model struct {
	w      *world
	l      *Links
	closed *store.Store // takes no writes
	links  []*modelLink
	last   map[pki.Kind]int64
}

func (m *model) down() bool { return m.l.cfg.Store == m.closed }

// restart forgets all that is not written down.
func (m *model) restart(t *rapid.T) {
	if m.down() {
		t.Skip("it would not start")
	}
	m.l = reborn(m.l)
	require.NoError(t, m.l.loadUses(m.w.t.Context()))
	for _, link := range m.links {
		link.uses, link.lastUse = link.saved, link.savedAt
		if !link.written {
			link.revoked = time.Time{}
		}
	}
}

// reborn knows what is written down, but for the uses.
func reborn(l *Links) *Links {
	return &Links{
		cfg: l.cfg, secret: l.secret, mirror: l.mirror,
		condemned: map[string]time.Time{}, changed: make(chan struct{}), known: map[string]record{}, tallies: map[string]*tally{},
	}
}

// stall makes the store refuse everything, and recover lets it work again.
func (m *model) stall(*rapid.T)   { m.l.cfg.Store = m.closed }
func (m *model) recover(*rapid.T) { m.l.cfg.Store = m.w.store }

func (m *model) pick(t *rapid.T) *modelLink {
	if len(m.links) == 0 {
		t.Skip("no link yet")
	}
	return rapid.SampledFrom(m.links).Draw(t, "link")
}

func (m *model) create(t *rapid.T) {
	spec := Spec{
		Kind:      rapid.SampledFrom(kinds()).Draw(t, "kind"),
		Name:      rapid.SampledFrom([]string{"a", "A", "b"}).Draw(t, "name"),
		Protocols: rapid.SampledFrom([][]string{nil, {HTTP}, {HTTPS, HTTP}}).Draw(t, "protocols"),
	}
	if spec.Kind == UEFI {
		spec.Set = rapid.Int64Range(1, 2).Draw(t, "set")
	}
	if life := rapid.SampledFrom([]time.Duration{0, time.Hour, 48 * time.Hour}).Draw(t, "life"); life > 0 {
		end := m.w.now().Add(life)
		spec.ExpiresAt = &end
	}
	taken := slices.ContainsFunc(m.links, func(o *modelLink) bool {
		return o.live() && o.Kind == spec.Kind && o.Set == spec.Set && strings.EqualFold(o.Name, spec.Name)
	})
	link, err := m.l.Create(m.w.t.Context(), spec)
	switch {
	case m.down():
		require.ErrorIs(t, err, store.ErrUnavailable)
		return
	case taken:
		require.Equal(t, &Invalid{[]Fault{{"name", CodeTaken, "has already been taken"}}}, err)
		return
	}
	require.NoError(t, err)
	require.Greater(t, link.ID, m.last[spec.Kind], "ids are never used again")
	m.last[spec.Kind] = link.ID
	made := &modelLink{Link: link, token: m.l.Token(link).Encode()}
	for _, other := range m.links {
		require.NotEqual(t, other.token, made.token)
	}
	m.links = append(m.links, made)
}

func (m *model) revoke(t *rapid.T) {
	link := m.pick(t)
	changed := m.l.Changed()
	_, err := m.l.Revoke(m.w.t.Context(), link.Kind, link.ID)
	switch {
	case !link.live() && !m.down():
		require.ErrorIs(t, err, ErrUnknown)
	case m.down():
		require.ErrorIs(t, err, store.ErrUnavailable)
	default:
		require.NoError(t, err)
	}
	m.ended(t, link, changed)
}

func (m *model) revokeSet(t *rapid.T) {
	set := rapid.Int64Range(1, 2).Draw(t, "set")
	changed := m.l.Changed()
	if err := m.l.RevokeSet(m.w.t.Context(), set); m.down() {
		require.ErrorIs(t, err, store.ErrUnavailable)
	} else {
		require.NoError(t, err)
	}
	for _, link := range m.links {
		if link.Kind == UEFI && link.Set == set {
			m.ended(t, link, changed)
		}
	}
}

// ended takes down that a link was revoked.
func (m *model) ended(t *rapid.T, link *modelLink, changed <-chan struct{}) {
	if link.revoked.IsZero() {
		link.revoked = m.w.now()
		requireClosed(t, changed)
	}
	link.written = link.written || !m.down()
}

// want is the code with which a token is refused.
func (m *model) want(link *modelLink, over string) string {
	switch {
	case !link.revoked.IsZero():
		return pki.CodeRevoked
	case link.ExpiresAt != nil && !m.w.now().Before(*link.ExpiresAt):
		return pki.CodeExpired
	case over != "" && !slices.Contains(link.Protocols, over):
		return pki.CodeNotAllowed
	}
	return ""
}

func (m *model) find(t *rapid.T) {
	link, over := m.pick(t), rapid.SampledFrom([]string{HTTPS, HTTP}).Draw(t, "over")
	id, got, err := m.l.Find(link.Kind, link.token, over, m.w.now())
	require.Equal(t, m.want(link, over), code(t, err))
	if err == nil {
		require.Equal(t, link.ID, id.ID)
		require.Equal(t, link.Name, id.Name)
		require.Equal(t, link.Set, got.Set)
		require.NoError(t, m.l.Good(id, m.w.now()))
	}
	other := kinds()[0]
	if other == link.Kind {
		other = kinds()[1]
	}
	require.Equal(t, pki.CodeUnknownToken, found(t, m.l, other, link.token, over, m.w.now()))
}

// good asks about a connection that showed its token some time ago.
func (m *model) good(t *rapid.T) {
	link := m.pick(t)
	id := pki.Identity{Kind: link.Kind, ID: link.ID, Fingerprint: link.digest}
	require.Equal(t, m.want(link, ""), code(t, m.l.Good(id, m.w.now())))
	steps := m.l.Explain(link.token, m.w.now())
	last := slices.IndexFunc(steps, func(s pki.Step) bool { return s.Code != "" })
	if want := m.want(link, ""); want == "" {
		require.Equal(t, -1, last)
	} else {
		require.Equal(t, len(steps)-1, last)
		require.Equal(t, want, steps[last].Code)
	}
}

func (m *model) use(t *rapid.T) {
	link := m.pick(t)
	if !link.live() {
		t.Skip("nobody gets to use it")
	}
	m.l.Used(link.Kind, link.ID, uuidA, m.w.now())
	link.uses, link.lastUse = link.uses+1, m.w.now()
}

// flush writes what only memory knows.
func (m *model) flush(t *rapid.T) {
	m.l.flush(m.w.t.Context())
	if m.down() {
		return
	}
	for _, link := range m.links {
		link.written = !link.revoked.IsZero()
		link.saved, link.savedAt = link.uses, link.lastUse
	}
	require.Empty(t, m.l.condemned)
}

func (m *model) sweep(t *rapid.T) {
	m.l.sweep(m.w.t.Context())
	if m.down() {
		return
	}
	m.links = slices.DeleteFunc(m.links, func(link *modelLink) bool {
		gone := link.written && m.w.now().Sub(link.revoked) > 90*24*time.Hour
		if gone {
			require.Equal(t, pki.CodeUnknownToken, found(t, m.l, link.Kind, link.token, HTTPS, m.w.now()))
		}
		return gone
	})
}

func (m *model) pause(t *rapid.T) {
	m.w.wait(rapid.SampledFrom([]time.Duration{time.Minute, time.Hour, 30 * time.Hour, 50 * 24 * time.Hour}).Draw(t, "pause"))
}

// check compares all that can be listed.
func (m *model) check(t *rapid.T) {
	for _, kind := range kinds() {
		listed := m.l.List(kind)
		for _, link := range m.links {
			if link.Kind != kind || !link.live() {
				continue
			}
			require.NotEmpty(t, listed)
			got := listed[0]
			listed = listed[1:]
			require.Equal(t, link.ID, got.ID)
			require.Equal(t, link.Spec, got.Spec)
			require.True(t, link.revoked.Equal(got.Revoked))
			require.Equal(t, link.uses, got.Uses)
			if link.uses > 0 {
				require.True(t, link.lastUse.Equal(*got.LastUsed))
			}
			require.Equal(t, link.token, m.l.Token(got).Encode(), "it can be shown again")
		}
		require.Empty(t, listed)
	}
}

func requireClosed(t *rapid.T, c <-chan struct{}) {
	select {
	case <-c:
	default:
		t.Fatal("nobody was told")
	}
}

// TestT12_Model is what Links keep whatever happens in whatever order. The long
// form is: make models.
func TestT12_Model(t *testing.T) {
	setChecks(t, 500)
	closed, err := store.Open(t.Context(), store.Config{Dir: t.TempDir(), Reserve: enough})
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	var w *world
	var l *Links
	var last map[pki.Kind]int64
	sequence := 0
	rapid.Check(t, func(r *rapid.T) {
		if sequence++; sequence%250 == 1 { // etcd remembers keys that were removed for an hour
			if w != nil {
				require.NoError(t, w.store.Close())
				require.NoError(t, os.RemoveAll(w.dir)) // 80 MB each
			}
			w, last = newWorld(t), map[pki.Kind]int64{}
			l = w.open()
		}
		m := &model{w: w, l: reborn(l), closed: closed, last: last}
		m.clear(r)
		r.Repeat(map[string]func(*rapid.T){
			"create": m.create, "revoke": m.revoke, "revokeSet": m.revokeSet, "find": m.find, "good": m.good, "use": m.use,
			"flush": m.flush, "sweep": m.sweep, "pause": m.pause, "restart": m.restart, "stall": m.stall, "recover": m.recover,
			"create again": m.create, "find again": m.find, "recover again": m.recover, "": m.check,
		})
	})
}

// clear removes what the sequence before has left.
func (m *model) clear(t *rapid.T) {
	for _, kind := range kinds() {
		_, err := m.l.end(m.w.t.Context(), kind, func(record) bool { return true })
		require.NoError(t, err)
	}
	m.w.wait(91 * 24 * time.Hour)
	require.NoError(t, m.l.forget(m.w.t.Context()))
	require.Empty(t, m.l.mirror.List(recordPrefix))
	require.Empty(t, m.l.known)
}

// setChecks sets how many sequences rapid tries, unless the command line does.
func setChecks(t *testing.T, checks int) {
	t.Helper()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if given {
		return
	}
	if testing.Short() {
		checks /= 5 // and rapid divides by 5 itself
	}
	f := flag.Lookup("rapid.checks")
	require.NotNil(t, f)
	before := f.Value.String()
	require.NoError(t, f.Value.Set(strconv.Itoa(checks)))
	t.Cleanup(func() { require.NoError(t, f.Value.Set(before)) })
}
