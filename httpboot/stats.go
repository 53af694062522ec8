package httpboot

// Stats is what the server does just now.
type Stats struct {
	Connections int // open, on all ports
	Downloads   int // files that are being sent
	Booting     int // machines that have a place: see Server.MaxBooting
	Waiting     int // machines that wait for one
}

// Stats may be asked at any time.
func (s *Server) Stats() Stats {
	booting, waiting := s.admission.counts(s.Now())
	return Stats{Connections: s.shown.open(), Downloads: int(s.downloads.Load()), Booting: booting, Waiting: waiting}
}
