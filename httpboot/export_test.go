package httpboot

// BigFile is more than the buffers between server and client hold.
func BigFile() []byte { return bigFile }

// BigImage is the same as a file of an image.
func BigImage() ImageFile { return bigImage() }
