// Command engine-tftpd serves a folder by TFTP with nestboot's engine and
// without the rest of bootd, which serves no files of this size: the server of
// bench-tftp where one client loads one large file from disk.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"github.com/nestboot/nestboot/tftp"
)

func main() {
	listen := flag.String("listen", "", "`address` as host:port")
	dir := flag.String("dir", ".", "the `folder` to serve")
	flag.Parse()
	if err := run(*listen, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "engine-tftpd:", err)
		os.Exit(1)
	}
}

func run(listen, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	addr, err := net.ResolveUDPAddr("udp", listen)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return err
	}
	s := tftp.Server{Open: func(_ context.Context, name string, _ netip.AddrPort) (*io.SectionReader, error) {
		file, err := root.Open(name)
		if err != nil {
			return nil, err
		}
		info, err := file.Stat()
		if err != nil {
			file.Close()
			return nil, err
		}
		return io.NewSectionReader(file, 0, info.Size()), nil // closed by the runtime, with its last reader
	}}
	return s.Serve(context.Background(), conn)
}
