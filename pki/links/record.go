package links

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nestboot/nestboot/pki"
	"github.com/nestboot/nestboot/store"
)

// Keys in the store. A record lies under "links/<kind>/<digest of its token>",
// so that to look a token up is to look for a key; an id is never used again.
const (
	recordPrefix = "links/"
	lastIDPrefix = "link-ids/"
	usePrefix    = "link-uses/"
)

// record is what the store keeps of a link. It holds no secret.
type record struct {
	ID int64 `json:"id"`
	Spec
	Created time.Time `json:"created_at"`
	Nonce   []byte    `json:"nonce"`
	Revoked time.Time `json:"revoked_at,omitzero"` // the rest is kept to say which link it was

	digest   pki.Digest
	revision int64
}

func kindPrefix(kind pki.Kind) string { return recordPrefix + string(kind) + "/" }
func lastIDKey(kind pki.Kind) string  { return lastIDPrefix + string(kind) }

func recordKey(kind pki.Kind, digest pki.Digest) string { return kindPrefix(kind) + digest.String() }

func useKey(kind pki.Kind, id int64) string {
	return usePrefix + string(kind) + "/" + strconv.FormatInt(id, 10)
}

func (r record) key() string { return recordKey(r.Kind, r.digest) }

// decode reads a record and checks that it lies where it should.
func decode(e store.Entry) (record, error) {
	var r record
	if err := json.Unmarshal(e.Value, &r); err != nil {
		return record{}, fmt.Errorf("decode link: %w", err)
	}
	digest, found := strings.CutPrefix(e.Key, kindPrefix(r.Kind))
	if !found || r.ID <= 0 {
		return record{}, errors.New("decode link: it is not what its key says")
	}
	if err := r.digest.UnmarshalText([]byte(digest)); err != nil {
		return record{}, fmt.Errorf("decode link: %w", err)
	}
	r.revision = e.Revision
	return r, nil
}

// decodeAll leaves out what is damaged: Open has told of it.
func decodeAll(entries []store.Entry) []record {
	all := make([]record, 0, len(entries))
	for _, e := range entries {
		if r, err := decode(e); err == nil {
			all = append(all, r)
		}
	}
	return all
}

func (r record) op() (store.Op, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return store.Op{}, fmt.Errorf("encode link: %w", err)
	}
	return store.Set(r.key(), value), nil
}

// unchanged holds while the store has r as it was read.
func (r record) unchanged() store.Condition { return store.Unchanged(r.key(), r.revision) }

// Link is one URL.
type Link struct {
	ID int64 // unique among the links of its kind, also of former ones
	Spec
	Created time.Time
	// Revoked is set only while a revocation has not been written down yet: the
	// token is refused, and Run goes on trying.
	Revoked time.Time
	// Uses is how often a token was used, LastUsed when last, and UsedBy by
	// which machines, the latest first. Find leaves them out.
	Uses     int64
	LastUsed *time.Time
	UsedBy   []Use

	nonce  []byte
	digest pki.Digest
}

func (r record) link() Link {
	return Link{ID: r.ID, Spec: r.Spec, Created: r.Created, Revoked: r.Revoked, nonce: r.Nonce, digest: r.digest}
}

// find looks a token up by its digest. That takes no constant time and need not:
// who can choose digests at will cannot choose tokens.
func (l *Links) find(kind pki.Kind, digest pki.Digest) (record, bool) {
	key := recordKey(kind, digest)
	// Before the mirror is asked: a revocation goes from here to there.
	doom := l.doom(key)
	e, ok := l.mirror.Get(key)
	if !ok {
		return record{}, false
	}
	r, err := l.decoded(e)
	if err != nil {
		return record{}, false
	}
	return r.doomed(doom), true
}

// decoded is decode for what is asked again and again: a link may be limited to
// a thousand machines.
func (l *Links) decoded(e store.Entry) (record, error) {
	l.mu.RLock()
	r, ok := l.known[e.Key]
	l.mu.RUnlock()
	if ok && r.revision == e.Revision {
		return r, nil
	}
	r, err := decode(e)
	if err != nil {
		return record{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[e.Key] = r
	return r, nil
}

// doom is when a link was revoked that only memory knows to be revoked.
func (l *Links) doom(key string) time.Time {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.condemned[key]
}

func (r record) doomed(at time.Time) record {
	if r.Revoked.IsZero() {
		r.Revoked = at
	}
	return r
}

// live are the records of a kind that the store does not say are revoked.
func (l *Links) live(kind pki.Kind) []record {
	return slices.DeleteFunc(decodeAll(l.mirror.List(kindPrefix(kind))), func(r record) bool { return !r.Revoked.IsZero() })
}

// List returns the links of a kind, oldest first, also those that have expired.
func (l *Links) List(kind pki.Kind) []Link {
	all := []Link{}
	for _, r := range l.live(kind) {
		all = append(all, l.withUses(r.doomed(l.doom(r.key())).link()))
	}
	slices.SortFunc(all, func(a, b Link) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// OfSet returns the links of an artifact set.
func (l *Links) OfSet(set int64) []Link {
	return slices.DeleteFunc(l.List(UEFI), func(link Link) bool { return link.Set != set })
}

// Get returns one link.
func (l *Links) Get(kind pki.Kind, id int64) (Link, bool) {
	for _, r := range l.live(kind) {
		if r.ID == id {
			return l.withUses(r.doomed(l.doom(r.key())).link()), true
		}
	}
	return Link{}, false
}
