package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nestboot/nestboot/boot"
	"github.com/nestboot/nestboot/ipxebuild"
	"github.com/nestboot/nestboot/ipxebuild/identity"
)

// buildFlags is the command line of artifact build.
type buildFlags struct {
	name, url, out   string
	cert, key, root  string
	passwordFile     string
	bases            []string
	keyless, replace bool
	options          *setOptions
}

func artifactBuild() *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:   "build --name NAME --cert FILE --key FILE --root FILE --url https://HOST --out DIR",
		Short: "Make a set's boot artifacts on this machine, with a key that never leaves it",
		Long: "Make a set's boot artifacts, all formats, on this machine. Nothing is contacted: the private key\n" +
			"goes into the files and nowhere else.\n\n" +
			"Certificate and key are PEM, DER or PKCS #12; passwords are asked for on the terminal. Stock binaries\n" +
			"come from Debian's packages ipxe, pxelinux, isolinux and syslinux-common, or from --base. bootd lets\n" +
			"its machines boot once their authority is registered or the certificate pinned: nestctl trust add.",
		Example: "  nestctl artifact build --name rack1 --cert rack1.pem --key rack1.key --root root.pem \\\n" +
			"    --url https://ipxe.example.com --out rack1\n" +
			"  nestctl artifact build --name rack1 --cert rack1.p12 --root root.pem --url https://ipxe.example.com --out rack1",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.name, "name", "", "`NAME` of the set, part of every file's name")
	fs.StringVar(&f.cert, "cert", "", "`FILE` with the client certificate: PEM, DER or PKCS #12")
	fs.StringVar(&f.key, "key", "", "`FILE` with its private key; - is standard input (default: the key is in --cert)")
	fs.StringVar(&f.root, "root", "", "`FILE` with the root certificate that the server's chain ends in")
	fs.StringVar(&f.url, "url", "", "`URL` that machines ask: https://HOST or https://HOST:PORT")
	fs.StringVar(&f.out, "out", "", "`DIR` to make and put the files into")
	fs.StringArrayVar(&f.bases, "base", nil, "`PATH` of a .deb or a folder with stock binaries, several times (default: where Debian installs them)")
	fs.StringVar(&f.passwordFile, "password-file", "", "`FILE` whose first line is the password (default: ask)")
	fs.BoolVar(&f.keyless, "keyless", false, "without certificate and key: machines wait for approval")
	fs.BoolVar(&f.replace, "force", false, "replace the files of an earlier build in --out")
	f.options = setOptionFlags(fs)
	return cmd
}

func (f *buildFlags) run(cmd *cobra.Command) error {
	if err := f.validate(); err != nil {
		return err
	}
	out, err := filepath.Abs(f.out)
	if err != nil {
		return fmt.Errorf("find --out: %w", err)
	}
	if real, err := filepath.EvalSymlinks(out); err == nil {
		out = real
	}
	old, err := earlierBuild(out, f.replace) // before a password is asked for
	if err != nil {
		return err
	}
	config, err := f.config(cmd)
	if err != nil {
		return err
	}
	stock, err := readStock(f.bases, "/")
	if err != nil {
		return err
	}
	set, err := stock.Set(config)
	if err != nil {
		return err
	}
	if err := writeSet(set, out, old); err != nil {
		return err
	}
	return printSet(cmd.OutOrStdout(), set, out)
}

// validate reports all flags that are missing or don't go together.
func (f *buildFlags) validate() error {
	var errs []error
	for _, need := range []struct{ flag, value, what string }{
		{"name", f.name, "name of the set"},
		{"root", f.root, "root certificate that the server's chain ends in"},
		{"url", f.url, "URL that machines ask"},
		{"out", f.out, "folder to make"},
	} {
		if need.value == "" {
			errs = append(errs, fmt.Errorf("--%s is missing: the %s", need.flag, need.what))
		}
	}
	switch {
	case f.keyless && (f.cert != "" || f.key != ""):
		errs = append(errs, errors.New("--keyless goes without --cert and --key"))
	case !f.keyless && f.cert == "":
		errs = append(errs, errors.New("--cert is missing: the client certificate; a set without one is --keyless"))
	}
	return errors.Join(errs...)
}

// config reads and checks all that the set is made of.
func (f *buildFlags) config(cmd *cobra.Command) (ipxebuild.Config, error) {
	options, err := f.options.options()
	if err != nil {
		return ipxebuild.Config{}, err
	}
	archs, err := f.options.archs()
	if err != nil {
		return ipxebuild.Config{}, err
	}
	now := time.Now()
	c := ipxebuild.Config{Name: f.name, URL: f.url, Base: f.options.baseVersion, Archs: archs, Options: options, Now: now}
	id, err := f.identity(cmd)
	if err != nil {
		return ipxebuild.Config{}, err
	}
	if now.After(id.Root.NotAfter) { // iPXE looks at its date before it looks whether it is trusted
		return ipxebuild.Config{}, fmt.Errorf("the root certificate in %s expired on %s: machines would refuse the server",
			f.root, id.Root.NotAfter.Format(time.DateOnly))
	}
	c.Root = id.RootFingerprint()
	if f.keyless {
		return c, nil
	}
	if err := ipxebuild.CheckClient(id.Leaf, id.Key.Signer(), now); err != nil {
		return ipxebuild.Config{}, fmt.Errorf("client certificate in %s: %w", f.cert, err)
	}
	c.Cert, c.Key = id.Leaf.Raw, id.Key.DER()
	return c, nil
}

// identity reads the files; without a key, the root alone.
func (f *buildFlags) identity(cmd *cobra.Command) (identity.Identity, error) {
	in := identity.Input{Password: passwords(cmd.Context(), f.passwordFile)}
	var err error
	if in.Root, err = source(f.root); err != nil {
		return identity.Identity{}, err
	}
	if f.keyless {
		root, err := identity.ReadRoot(in.Root)
		return identity.Identity{Root: root}, err
	}
	if in.Cert, err = source(f.cert); err != nil {
		return identity.Identity{}, err
	}
	switch f.key {
	case "":
	case "-":
		in.Key.Name = "standard input"
		in.Key.Data, err = readAll(in.Key.Name, cmd.InOrStdin(), identity.MaxFile)
	default:
		in.Key, err = source(f.key)
	}
	if err != nil {
		return identity.Identity{}, err
	}
	return identity.Read(in)
}

func source(path string) (identity.Source, error) {
	data, err := readFile(path, identity.MaxFile)
	return identity.Source{Name: path, Data: data}, err
}

// setOptions are the flags that say what a set does on the machines, as they
// were given. Wherever a set is made they are the same.
type setOptions struct {
	archList    []string
	baseVersion string
	vlan        int
	address     string
	gateway     string
	dns         string
	ntp         string
	serial      string
	localAfter  int
}

// setOptionFlags adds the flags to fs. Read them after fs has been parsed.
func setOptionFlags(fs *pflag.FlagSet) *setOptions {
	o := &setOptions{}
	fs.StringSliceVar(&o.archList, "arch", nil, "`ARCHITECTURES`, amd64 or arm64 or both (default: all that the base has)")
	fs.StringVar(&o.baseVersion, "base-version", "", "iPXE `VERSION` to build from (default: the newest)")
	fs.IntVar(&o.vlan, "vlan", 0, "boot on the network with this VLAN `TAG`, 1 to 4094")
	fs.StringVar(&o.address, "address", "", "static `ADDRESS/PREFIX` instead of DHCP, for a set with a single machine")
	fs.StringVar(&o.gateway, "gateway", "", "default gateway `ADDRESS`, with --address")
	fs.StringVar(&o.dns, "dns", "", "DNS server `ADDRESS`, with --address")
	fs.StringVar(&o.ntp, "ntp", "", "time server `HOST` to ask before TLS, for machines with a wrong clock; needs an iPXE that can")
	fs.StringVar(&o.serial, "serial-console", "", "serial `PORT` that boot menus talk on too: ttyS0 or ttyS0,115200; iPXE talks where the firmware does")
	fs.IntVar(&o.localAfter, "local-after", 0, "boot from the local disk after `N` failed tries (default: never)")
	return o
}

// archs are the architectures asked for; nil is all.
func (o *setOptions) archs() ([]boot.Arch, error) {
	var out []boot.Arch
	for _, s := range o.archList {
		switch s {
		case "amd64", string(boot.AMD64):
			out = append(out, boot.AMD64)
		case string(boot.ARM64):
			out = append(out, boot.ARM64)
		default:
			return nil, fmt.Errorf("--arch %q is neither amd64 nor arm64", s)
		}
	}
	return out, nil
}

// options are the flags as package ipxebuild takes them. The error has all
// faults.
func (o *setOptions) options() (ipxebuild.Options, error) {
	var errs []error
	addr := func(flag, s string) netip.Addr {
		if s == "" {
			return netip.Addr{}
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("--%s %q is not an IP address", flag, s))
		}
		return a
	}
	out := ipxebuild.Options{
		VLAN: o.vlan, NTP: o.ntp, LocalAfter: o.localAfter,
		Console: ipxebuild.Console{Serial: o.serial},
	}
	gateway, dns := addr("gateway", o.gateway), addr("dns", o.dns)
	switch {
	case o.address != "":
		p, err := netip.ParsePrefix(o.address)
		if err != nil {
			errs = append(errs, fmt.Errorf("--address %q is not an address with its prefix length, like 192.0.2.7/24", o.address))
		}
		out.Static = &ipxebuild.Static{Address: p, Gateway: gateway, DNS: dns}
	case o.gateway != "" || o.dns != "":
		errs = append(errs, errors.New("--gateway and --dns need --address: by DHCP the server names them"))
	}
	if len(errs) > 0 { // else Validate would repeat them in other words
		return ipxebuild.Options{}, errors.Join(errs...)
	}
	if err := out.Validate(); err != nil {
		return ipxebuild.Options{}, err
	}
	return out, nil
}
