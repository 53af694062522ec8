package trusted

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// splitList reads a revocation list without its entries, which it returns as
// they are. The x509 package takes thirty times the size of a list to read it
// whole, before its signature can be checked; so only what is signed is read
// further.
func splitList(der []byte) (crl *x509.RevocationList, entries []byte, err error) {
	var outer struct{ TBS, Algorithm, Signature asn1.RawValue }
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 {
		return nil, nil, errors.New("it is no revocation list")
	}
	shell, entries, err := withoutEntries(outer.TBS)
	if err != nil {
		return nil, nil, err
	}
	small, err := asn1.Marshal([]asn1.RawValue{{FullBytes: shell}, outer.Algorithm, outer.Signature})
	if err != nil {
		return nil, nil, fmt.Errorf("take out its entries: %w", err)
	}
	if crl, err = x509.ParseRevocationList(small); err != nil {
		return nil, nil, err
	}
	if len(crl.RevokedCertificateEntries) > 0 {
		return nil, nil, errors.New("it has two lists of entries")
	}
	crl.Raw, crl.RawTBSRevocationList = der, outer.TBS.FullBytes
	return crl, entries, nil
}

// withoutEntries takes the entries out of a TBSCertList (RFC 5280, 5.1): after
// version, algorithm, issuer and time there may be another time, the entries
// and extensions, each once. The x509 package overlooks what else there is; we
// do not.
func withoutEntries(tbs asn1.RawValue) (shell, entries []byte, err error) {
	var kept []byte
	stage := 0
	for rest := tbs.Bytes; len(rest) > 0; {
		var part asn1.RawValue
		if rest, err = asn1.Unmarshal(rest, &part); err != nil {
			return nil, nil, fmt.Errorf("it is damaged: %w", err)
		}
		next := stageOf(part)
		switch {
		case stage < 4:
			stage++ // checked with the shell
		case next <= stage:
			return nil, nil, errors.New("it has something that no list has")
		default:
			stage = next
		}
		if stage == stageEntries {
			entries = part.Bytes
		} else {
			kept = append(kept, part.FullBytes...)
		}
	}
	shell, err = asn1.Marshal(asn1.RawValue{Class: tbs.Class, Tag: tbs.Tag, IsCompound: tbs.IsCompound, Bytes: kept})
	return shell, entries, err
}

// The parts that may follow the first four.
const (
	stageNext = 5 + iota
	stageEntries
	stageExtensions
)

// stageOf returns 0 for what is none of them.
func stageOf(part asn1.RawValue) int {
	switch universal := part.Class == asn1.ClassUniversal; {
	case universal && !part.IsCompound && (part.Tag == asn1.TagUTCTime || part.Tag == asn1.TagGeneralizedTime):
		return stageNext
	case universal && part.IsCompound && part.Tag == asn1.TagSequence:
		return stageEntries
	case part.Class == asn1.ClassContextSpecific && part.IsCompound && part.Tag == 0:
		return stageExtensions
	}
	return 0
}

// readEntries returns the serial numbers, big-endian without leading zeros.
func readEntries(entries []byte) (map[string]struct{}, error) {
	revoked := map[string]struct{}{}
	for n := 1; len(entries) > 0; n++ {
		var entry struct {
			Serial     asn1.RawValue
			Time       asn1.RawValue
			Extensions []pkix.Extension `asn1:"optional"`
		}
		var err error
		if entries, err = asn1.Unmarshal(entries, &entry); err != nil {
			return nil, fmt.Errorf("entry %d is damaged: %w", n, err)
		}
		if entry.Serial.Class != asn1.ClassUniversal || entry.Serial.Tag != asn1.TagInteger || len(entry.Serial.Bytes) == 0 {
			return nil, fmt.Errorf("entry %d has no serial number", n)
		}
		for _, x := range entry.Extensions {
			if x.Critical {
				return nil, fmt.Errorf("entry %d has the critical extension %s: only full lists of one issuer are understood", n, x.Id)
			}
		}
		if entry.Serial.Bytes[0] < 0x80 { // no certificate has a negative one
			revoked[string(bytes.TrimLeft(entry.Serial.Bytes, "\x00"))] = struct{}{}
		}
	}
	return revoked, nil
}
