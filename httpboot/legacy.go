package httpboot

import (
	"crypto/tls"
	"net"
	"net/http"
)

// legacySuites are all that OVMF 2022.11 can do that a server of ours may: RSA
// key exchange, without forward secrecy. It knows no elliptic curves at all.
var legacySuites = []uint16{
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	tls.TLS_RSA_WITH_AES_256_CBC_SHA,
}

// legacyFront is the port for such firmware: it hands out the files of sets and
// nothing else. Who records what goes over it, and has the server's key one day,
// reads all of it; what it serves is worth no more than the set's own key.
func (s *Server) legacyFront(l net.Listener) *front {
	return &front{
		listener: newLimited(l, s), config: legacyConfig,
		hosts: map[Role]*served{Boot: {newHandedOver(l.Addr()), s.legacy}},
	}
}

func legacyConfig(host Host) *tls.Config {
	c := tlsConfig(host)
	c.MaxVersion, c.CipherSuites = tls.VersionTLS12, legacySuites
	return c
}

func (s *Server) legacy(w http.ResponseWriter, req *http.Request, _ Host) error {
	return s.files(w, req)
}
