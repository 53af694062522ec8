/* The UEFI part of a single-file artifact: starts an EFI program that travels inside this one, with load options that
 * travel beside it.
 *
 * The packer (efi.go) appends both as sections of the PE file:
 *   .ipxe    the EFI program, byte for byte
 *   .script  its load options, UTF-16LE, NUL-terminated
 * No static data is written and no absolute address is stored, so the program needs no relocations and its one section
 * of code can be read-only. Layouts and numbers are the UEFI specification's (2.10). */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u64 status;

#if defined(__x86_64__)
#define EFIAPI __attribute__((ms_abi))
#else
#define EFIAPI
#endif
#define ERR(n) ((1ULL << 63) | (n))
#define LOAD_ERROR ERR(1)
#define ACCESS_DENIED ERR(15)
#define SECURITY_VIOLATION ERR(26)

struct guid { u32 a; u16 b, c; u8 d[8]; };
struct header { u64 sig; u32 rev, size, crc, zero; };

struct boot_services {
	struct header h;
	void *tpl[2], *memory[5], *event[6];
	void *install, *reinstall, *uninstall;
	status (EFIAPI *handle_protocol)(void *handle, const struct guid *g, void **iface);
	void *reserved, *notify, *locate_handle, *locate_path, *config_table;
	status (EFIAPI *load_image)(u8 policy, void *parent, void *path, void *src, u64 len, void **image);
	status (EFIAPI *start_image)(void *image, u64 *exit_len, u16 **exit_data);
	void *exit;
	status (EFIAPI *unload_image)(void *image);
	void *exit_boot_services, *monotonic;
	status (EFIAPI *stall)(u64 microseconds);
};

struct text_out {
	void *reset;
	status (EFIAPI *puts)(struct text_out *t, const u16 *s);
};

struct system_table {
	struct header h;
	u16 *vendor;
	u32 revision;
	void *in_handle, *in, *out_handle;
	struct text_out *out;
	void *err_handle, *err, *runtime;
	struct boot_services *bs;
};

struct loaded_image {
	u32 revision;
	void *parent;
	struct system_table *st;
	void *device, *path, *reserved;
	u32 opt_len;
	void *opt;
	u8 *base;
	u64 size;
};

static u32 le16(const u8 *p) { return p[0] | p[1] << 8; }
static u32 le32(const u8 *p) { return le16(p) | le16(p + 2) << 16; }

/* section returns the loaded bytes of the PE section called name (8 bytes, NUL-padded). */
static u8 *section(u8 *base, const char *name, u32 *len)
{
	u8 *pe = base + le32(base + 0x3c);
	u8 *s = pe + 24 + le16(pe + 20);
	for (u32 n = le16(pe + 6); n; n--, s += 40) {
		int i = 0;
		while (i < 8 && s[i] == (u8)name[i])
			i++;
		if (i == 8) {
			*len = le32(s + 8);
			return base + le32(s + 12);
		}
	}
	return 0;
}

/* fail prints what failed with its status and leaves it on the screen for 5 s, before the firmware goes on. */
static status fail(struct system_table *st, const u16 *what, status rc)
{
	struct text_out *out = st->out;
	u16 hex[17];

	for (int i = 0; i < 16; i++)
		hex[i] = "0123456789abcdef"[rc >> (60 - 4 * i) & 15];
	hex[16] = 0;
	if (out) {
		out->puts(out, u"nestboot: ");
		out->puts(out, what);
		out->puts(out, u", status ");
		out->puts(out, hex);
		out->puts(out, u"\r\n");
	}
	st->bs->stall(5000000);
	return rc;
}

status EFIAPI efi_main(void *self, struct system_table *st)
{
	static const struct guid loaded = { 0x5b1b31a1, 0x9562, 0x11d2, { 0x8e, 0x3f, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b } };
	static const struct guid devpath = { 0xbc62157e, 0x3e33, 0x4fec, { 0x99, 0x20, 0x2d, 0x3b, 0x36, 0xd7, 0x50, 0xdf } };
	struct boot_services *bs = st->bs;
	struct loaded_image *me, *kid;
	void *path = 0, *child = 0;
	u32 prog_len, opt_len;
	status rc;

	if ((rc = bs->handle_protocol(self, &loaded, (void **)&me)))
		return fail(st, u"cannot find itself in memory", rc);
	u8 *prog = section(me->base, ".ipxe\0\0", &prog_len);
	u8 *opt = section(me->base, ".script", &opt_len);
	if (!prog || !opt)
		return fail(st, u"iPXE or script is missing", LOAD_ERROR);
	/* The path says where this file came from; iPXE shows it as its own origin. It can do without. */
	if (bs->handle_protocol(self, &devpath, &path))
		path = 0;
	if ((rc = bs->load_image(0, self, path, prog, prog_len, &child))) {
		/* A violation leaves an image behind that is loaded but may not be started. */
		if (rc == SECURITY_VIOLATION && child)
			bs->unload_image(child);
		if (rc == SECURITY_VIOLATION || rc == ACCESS_DENIED)
			return fail(st, u"Secure Boot refuses this iPXE, use a signed set", rc);
		return fail(st, u"the firmware cannot load iPXE", rc);
	}
	if ((rc = bs->handle_protocol(child, &loaded, (void **)&kid))) {
		bs->unload_image(child);
		return fail(st, u"iPXE is lost after loading", rc);
	}
	/* iPXE's snponly drives the card that its device handle names: the one this file came through. */
	kid->device = me->device;
	kid->opt = opt;
	kid->opt_len = opt_len;
	/* What iPXE returns, it has explained itself; a script may well end in "exit 1" to go on to the next device. */
	return bs->start_image(child, 0, 0);
}
