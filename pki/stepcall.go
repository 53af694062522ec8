package pki

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.step.sm/crypto/jose"
)

const (
	maxStepBody = 1 << 20
	// stepTokenLife is how long a token may be used: step-ca takes each once.
	stepTokenLife = 5 * time.Minute
	// stepPages bounds the pages of provisioners that are read.
	stepPages = 100
)

// token lets step-ca sign one request.
func (s *stepCA) token(ctx context.Context, l leaf) (string, error) {
	key, err := s.provisioner(ctx)
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", key.KeyID)
	by, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key.Key}, options)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	now := time.Now() // step-ca's clock, and not ours, if they differ in a test
	claims := struct {
		jose.Claims
		SANs []string `json:"sans"`
		SHA  string   `json:"sha"`
	}{
		Claims: jose.Claims{
			ID: rand.Text(), Issuer: s.cfg.Provisioner, Subject: l.name,
			Audience: jose.Audience{s.url.JoinPath("/1.0/sign").String()},
			IssuedAt: jose.NewNumericDate(now), NotBefore: jose.NewNumericDate(now.Add(-time.Minute)), Expiry: jose.NewNumericDate(now.Add(stepTokenLife)),
		},
		SANs: l.values(), SHA: fingerprintOf(s.root).String(),
	}
	token, err := jose.Signed(by).Claims(claims).CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}

// provisioner fetches the provisioner's key and decrypts it.
func (s *stepCA) provisioner(ctx context.Context) (*jose.JSONWebKey, error) {
	cursor := ""
	for range stepPages {
		var page struct {
			Provisioners []struct {
				Name string `json:"name"`
				Type string `json:"type"`
				Key  string `json:"encryptedKey"`
			} `json:"provisioners"`
			Next string `json:"nextCursor"`
		}
		if err := s.call(ctx, http.MethodGet, "/provisioners?limit=100&cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return nil, fmt.Errorf("list provisioners: %w", err)
		}
		for _, p := range page.Provisioners {
			if p.Name == s.cfg.Provisioner && p.Type == "JWK" && p.Key != "" {
				return s.decrypt(p.Key)
			}
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	return nil, fmt.Errorf("it has no JWK provisioner %q that hands out its encrypted key: add one with step ca provisioner add", s.cfg.Provisioner)
}

func (s *stepCA) decrypt(text string) (*jose.JSONWebKey, error) {
	sealed, err := jose.ParseEncrypted(text)
	if err != nil {
		return nil, fmt.Errorf("key of provisioner %s: %w", s.cfg.Provisioner, err)
	}
	data, err := sealed.Decrypt(s.password)
	if err != nil {
		return nil, fmt.Errorf("%s holds another password than that of provisioner %s", s.cfg.PasswordFile, s.cfg.Provisioner)
	}
	key := new(jose.JSONWebKey)
	if err := json.Unmarshal(data, key); err != nil {
		return nil, fmt.Errorf("key of provisioner %s: %w", s.cfg.Provisioner, err)
	}
	return key, nil
}

// call does one request and decodes the answer.
func (s *stepCA) call(ctx context.Context, method, path string, body, answer any) error {
	var content io.Reader = http.NoBody
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		content = bytes.NewReader(text)
	}
	where, err := s.url.Parse(path)
	if err != nil {
		return fmt.Errorf("make its address: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, where.String(), content)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err // names method and address
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxStepBody))
	if err != nil {
		return fmt.Errorf("read its answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return refusedByStep(resp.StatusCode, data)
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return fmt.Errorf("decode its answer: %w", err)
	}
	return nil
}

// refusedByStep is the error for an answer that is none.
func refusedByStep(status int, data []byte) error {
	var refusal struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &refusal) != nil || refusal.Message == "" {
		refusal.Message = "it gives no reason"
	}
	err := fmt.Errorf("it refuses with status %d: %.300q", status, refusal.Message)
	if strings.Contains(refusal.Message, "duration") {
		err = fmt.Errorf("%w; give its provisioner a maxTLSCertDuration of 8784h", err)
	}
	return err
}
