package signature_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/stretchr/testify/require"

	"github.com/nestboot/nestboot/images/signature"
	"github.com/nestboot/nestboot/integration/mirror"
)

var (
	day  = 24 * time.Hour
	made = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now  = made.Add(300 * day)
	data = bytes.Repeat([]byte("kernel"), 1000)
)

func code(err error) string {
	var r *signature.Refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

func keyring(t *testing.T, m *mirror.Maker) *signature.Keyring {
	t.Helper()
	k, err := signature.ReadKeys(m.Keys(), []string{m.Fingerprint()})
	require.NoError(t, err)
	return k
}

func TestT29_DistinctRefusals(t *testing.T) {
	maker := mirror.NewMaker(t, made, 100*day)
	other := mirror.NewMaker(t, made, 0)
	revoked := mirror.NewMaker(t, made, 0)
	sigOfRevoked := revoked.Sign(data, made.Add(day))
	revoked.Revoke(packet.KeyCompromised, made.Add(2*day))
	changed := bytes.Clone(data)
	changed[17] ^= 1
	for name, tt := range map[string]struct {
		ring *signature.Keyring
		data []byte
		sig  []byte
		want string
	}{
		"good":                           {keyring(t, maker), data, maker.Sign(data, made.Add(day)), ""},
		"good, the subkey expired since": {keyring(t, maker), data, maker.Sign(data, made.Add(99*day)), ""},
		"another key":                    {keyring(t, maker), data, other.Sign(data, made.Add(day)), signature.CodeWrongKey},
		"subkey had expired":             {keyring(t, maker), data, maker.Sign(data, made.Add(101*day)), signature.CodeExpiredKey},
		"before the key was made":        {keyring(t, maker), data, maker.Sign(data, made.Add(-day)), signature.CodeExpiredKey},
		"key stolen":                     {keyring(t, revoked), data, sigOfRevoked, signature.CodeExpiredKey},
		"one bit":                        {keyring(t, maker), changed, maker.Sign(data, made.Add(day)), signature.CodeBad},
		"from the future":                {keyring(t, other), data, other.Sign(data, now.Add(2*day)), signature.CodeBad},
		"no signature":                   {keyring(t, maker), data, []byte("<html>"), signature.CodeBad},
		"empty":                          {keyring(t, maker), data, nil, signature.CodeBad},
		"keys for a signature":           {keyring(t, maker), data, maker.Keys(), signature.CodeBad},
		"too long":                       {keyring(t, maker), data, make([]byte, signature.MaxSignature+1), signature.CodeBad},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := tt.ring.Detached(bytes.NewReader(tt.data), tt.sig, now)
			require.Equal(t, tt.want, code(err), "%v", err)
			if early := tt.ring.Promising(tt.sig, now); early != nil {
				require.Equal(t, tt.want, code(early), "before the download the same")
			} else {
				require.Contains(t, []string{"", signature.CodeBad}, tt.want, "only the file can tell")
			}
			if tt.want == "" {
				require.NoError(t, err)
				require.Equal(t, maker.Fingerprint(), s.Key)
				require.NotEqual(t, s.Key, s.Subkey, "a subkey signs")
			}
		})
	}
}

// TestT29_RevokedKeysNeverSign: whoever has the key writes any day into a
// signature, so the reason of a revocation and its day do not matter.
func TestT29_RevokedKeysNeverSign(t *testing.T) {
	for _, why := range []packet.ReasonForRevocation{packet.NoReason, packet.KeySuperseded, packet.KeyCompromised, packet.KeyRetired} {
		for of, revoke := range map[string]func(*mirror.Maker){
			"primary": func(m *mirror.Maker) { m.Revoke(why, made.Add(2*day)) },
			"subkey":  func(m *mirror.Maker) { m.RevokeSubkey(why, made.Add(2*day)) },
		} {
			maker := mirror.NewMaker(t, made, 0)
			revoke(maker)
			sig := maker.Sign(data, made.Add(day)) // before the revocation, as it says
			ring := keyring(t, maker)
			_, err := ring.Detached(bytes.NewReader(data), sig, now)
			require.Equal(t, signature.CodeExpiredKey, code(err), "%s, reason %d: %v", of, why, err)
			require.ErrorContains(t, err, "is revoked")
			require.Equal(t, signature.CodeExpiredKey, code(ring.Promising(sig, now)))
		}
	}
}

func TestT29_OnlyPinnedKeysCount(t *testing.T) {
	maker, other := mirror.NewMaker(t, made, 0), mirror.NewMaker(t, made, 0)
	_, err := signature.ReadKeys(other.Keys(), []string{maker.Fingerprint()})
	require.Equal(t, signature.CodeWrongKey, code(err), "%v", err)
	_, err = signature.ReadKeys([]byte("no keys"), []string{maker.Fingerprint()})
	require.Error(t, err)
	_, err = signature.ReadKeys(nil, []string{maker.Fingerprint()})
	require.Error(t, err)
}

func TestT29_RevocationsStay(t *testing.T) {
	for of, revoke := range map[string]func(*mirror.Maker){
		"primary": func(m *mirror.Maker) { m.Revoke(packet.NoReason, made.Add(2*day)) },
		"subkey":  func(m *mirror.Maker) { m.RevokeSubkey(packet.NoReason, made.Add(2*day)) },
	} {
		maker, other := mirror.NewMaker(t, made, 0), mirror.NewMaker(t, made, 0)
		good := maker.Keys()
		revoke(maker)
		pins := []string{maker.Fingerprint(), other.Fingerprint()}
		read := func(data []byte) *signature.Keyring {
			k, err := signature.ReadKeys(data, pins)
			require.NoError(t, err)
			return k
		}
		for _, order := range [][][]byte{{good, maker.Keys()}, {maker.Keys(), good}} {
			k := read(order[0])
			k.Add(read(order[1]))
			k.Add(read(other.Keys()))
			encoded, err := k.Encode()
			require.NoError(t, err)
			for _, k := range []*signature.Keyring{k, read(encoded)} {
				_, err = k.Detached(bytes.NewReader(data), maker.Sign(data, made.Add(day)), now)
				require.Equal(t, signature.CodeExpiredKey, code(err), "%s: %v", of, err)
				_, err = k.Detached(bytes.NewReader(data), other.Sign(data, made.Add(day)), now)
				require.NoError(t, err)
			}
		}
	}
}

func TestCopiesOfAKeyAreOne(t *testing.T) {
	maker := mirror.NewMaker(t, made, 0)
	one, err := keyring(t, maker).Encode()
	require.NoError(t, err)
	k, err := signature.ReadKeys(bytes.Repeat(one, 200), []string{maker.Fingerprint()})
	require.NoError(t, err)
	again, err := k.Encode()
	require.NoError(t, err)
	require.Equal(t, one, again)
}

func TestSeveralSignatures(t *testing.T) {
	old, maker, other := mirror.NewMaker(t, made, day), mirror.NewMaker(t, made, 0), mirror.NewMaker(t, made, 0)
	sig := append(append(other.Sign(data, now), old.Sign(data, now)...), maker.Sign(data, now)...)
	s, err := keyring(t, maker).Detached(bytes.NewReader(data), sig, now)
	require.NoError(t, err, "Debian's archive is signed by the keys of two releases at a time")
	require.Equal(t, maker.Fingerprint(), s.Key)
	one, err := keyring(t, other).Encode()
	require.NoError(t, err)
	for name, sig := range map[string][]byte{
		"no signature before it": append(one, maker.Sign(data, now)...),
		"cut short after it":     append(maker.Sign(data, now), other.Sign(data, now)[:40]...),
	} {
		_, err = keyring(t, maker).Detached(bytes.NewReader(data), sig, now)
		require.NoError(t, err, name)
	}
}

func TestInline(t *testing.T) {
	maker := mirror.NewMaker(t, made, 0)
	list := []byte("# SHA512 HASH\n- dashed\nabc  file\n")
	signed := maker.SignInline(list, now)
	got, _, err := keyring(t, maker).Inline(append([]byte("before\n"), signed...), now)
	require.NoError(t, err)
	require.Equal(t, string(list), string(got), "what stands outside does not count")
	_, _, err = keyring(t, maker).Inline(bytes.Replace(signed, []byte("abc"), []byte("abd"), 1), now)
	require.Equal(t, signature.CodeBad, code(err))
	_, _, err = keyring(t, maker).Inline(list, now)
	require.Equal(t, signature.CodeBad, code(err))
}

func TestParseList(t *testing.T) {
	s256 := sha256.Sum256(data)
	d := hex.EncodeToString(s256[:])
	long := d + d
	got, err := signature.ParseList([]byte("# SHA512 HASH\n" + long + "  a/kernel\n" +
		d + " *./a/kernel\n" + " " + d + " 6000 main/initrd\r\n" +
		"SHA256 (bsd file) = " + d + "\nMD5 (x) = " + d[:32] + "\n" + d[:32] + "  weak\nSHA512 (short) = " + d + "\n"))
	require.NoError(t, err)
	require.Equal(t, map[string]signature.Sums{"a/kernel": {SHA256: d, SHA512: long}, "main/initrd": {SHA256: d}, "bsd file": {SHA256: d}}, got)
	_, err = signature.ParseList([]byte(d + " x\n" + "0" + d[1:] + " x\n"))
	require.ErrorContains(t, err, "two digests")
	_, err = signature.ParseList(make([]byte, signature.MaxList+1))
	require.ErrorContains(t, err, "longer")
}

func FuzzList(f *testing.F) {
	f.Add([]byte("0123  x\n"))
	f.Add([]byte("SHA256 (x) = e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"))
	f.Add([]byte(" e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 main/x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := signature.ParseList(data)
		if err != nil {
			return
		}
		for name, s := range list {
			require.NotEmpty(t, name)
			require.Contains(t, []int{0, 64}, len(s.SHA256))
			require.Contains(t, []int{0, 128}, len(s.SHA512))
		}
	})
}

// FuzzSignature looks for panics in what a mirror may send as a signature or as
// keys.
func FuzzSignature(f *testing.F) {
	maker := mirror.NewMaker(f, made, 0)
	ring, err := signature.ReadKeys(maker.Keys(), []string{maker.Fingerprint()})
	require.NoError(f, err)
	f.Add(maker.Sign(data, now))
	f.Add(maker.SignInline(data, now))
	f.Add(maker.Keys())
	f.Fuzz(func(t *testing.T, foreign []byte) {
		_, err := ring.Detached(bytes.NewReader([]byte("something else")), foreign, now)
		require.Error(t, err)
		_, _, _ = ring.Inline(foreign, now)
		_, _ = signature.ReadKeys(foreign, []string{maker.Fingerprint()})
	})
}
