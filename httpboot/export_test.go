package httpboot

// BigFile is more than the buffers between server and client hold.
func BigFile() []byte { return bigFile }

// BigImage is the same as a file of an image.
func BigImage() ImageFile { return bigImage() }

// any is one that has shown something.
func (r *registry) any() *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.by {
		for c := range h.conns {
			return c
		}
	}
	return nil
}
