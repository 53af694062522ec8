package boot

import (
	"strconv"
	"strings"
)

// Excerpt quotes at most n bytes of a text from outside, for a message. What is
// taken for a token is taken out of messages by its length (T19), and half of a
// token is not long enough for that: so a word that would be cut is left out.
func Excerpt(s string, n int) string {
	if len(s) > n {
		s = strings.TrimRightFunc(s[:n], inToken) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// inToken reports whether a character may be one of a token in base64url.
func inToken(r rune) bool {
	return r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}
