package repository

import "testing"

func TestALineOfMountinfoTellsFromWhereAFolderComes(t *testing.T) {
	for line, want := range map[string][3]string{
		"36 35 98:0 / /mnt/nas rw,noatime shared:1 - nfs4 filer.example.com:/export/kura rw": {"/mnt/nas", "filer.example.com", "/export/kura/images"},
		`36 35 98:0 / /mnt/my\040nas rw - cifs //filer/share rw`:                             {"/mnt/my nas", "filer", "/share/images"},
		"36 35 98:0 / / rw - ext4 /dev/sda1 rw":                                              {"/", "", ""},
	} {
		at, kind, source, ok := mountLine(line)
		host, path := remoteSource(kind, source, "images")
		if got := [3]string{at, host, path}; !ok || got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	if _, _, _, ok := mountLine("36 35 98:0 /"); ok {
		t.Error("half a line was read as one")
	}
	if host, path := mountOf(t.TempDir()); host != "" || path != "" {
		t.Errorf("a temporary folder lies at %s:%s, want on a disk of this machine", host, path)
	}
}
