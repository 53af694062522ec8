// Command pin-tftpd serves a folder by TFTP with the library pin/tftp, as its
// documentation shows it: a peer of bench-tftp.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/pin/tftp/v3"
)

func main() {
	listen := flag.String("listen", "", "`address` as host:port")
	dir := flag.String("dir", ".", "the `folder` to serve")
	flag.Parse()
	if err := run(*listen, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "pin-tftpd:", err)
		os.Exit(1)
	}
}

func run(listen, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	s := tftp.NewServer(func(name string, to io.ReaderFrom) error {
		file, err := root.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = to.ReadFrom(file)
		return err
	}, nil)
	s.SetTimeout(5 * time.Second)
	return s.ListenAndServe(listen)
}
