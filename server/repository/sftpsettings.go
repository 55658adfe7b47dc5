package repository

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// The settings of a KindSFTP.
const (
	sftpHost       = "host"
	sftpPort       = "port" // default 22
	sftpUser       = "user"
	sftpPath       = "path"
	sftpKey        = "private_key" // in PEM or OpenSSH's form, without a passphrase
	sftpKnownHosts = "known_hosts" // lines of OpenSSH's file of that name
)

const defaultSSHPort = "22"

func checkSFTP(settings map[string]string) error {
	err := known(settings, []string{sftpHost, sftpUser, sftpPath, sftpKey, sftpKnownHosts}, []string{sftpPort})
	if err != nil {
		return err
	}
	invalid := func(name, format string, args ...any) *backup.Error {
		return backup.Errorf(backup.Invalid, "settings."+name, format, args...)
	}
	if h := settings[sftpHost]; strings.ContainsAny(h, "/@ ") {
		return invalid(sftpHost, "The host %q is to be a name or an address alone.", h)
	}
	if p := settings[sftpPort]; p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return invalid(sftpPort, "The port is 1 to 65535, got %q.", p)
		}
	}
	if p := settings[sftpPath]; !path.IsAbs(p) {
		return invalid(sftpPath, "The path %q must be absolute.", p)
	}
	if err := checkReference(settings, sftpKey); err != nil {
		return err
	}
	if key := settings[sftpKey]; !strings.HasPrefix(key, fromEnv) && !strings.HasPrefix(key, fromFile) {
		if _, err := parseKey(key); err != nil {
			return err
		}
	}
	if err := checkKnownHosts(settings[sftpKnownHosts]); err != nil {
		return invalid(sftpKnownHosts, "The known hosts cannot be read: each line is to be as ssh-keyscan prints it.").Because(err)
	}
	return nil
}

func parseKey(pem string) (ssh.Signer, error) {
	key, err := ssh.ParsePrivateKey([]byte(pem))
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, backup.Errorf(backup.Invalid, "settings."+sftpKey,
			"The private key wants a passphrase, which nobody could type. Make a key without one for Kura alone: ssh-keygen -t ed25519 -N ''.").Because(err)
	}
	if err != nil {
		return nil, backup.Errorf(backup.Invalid, "settings."+sftpKey,
			"The private key cannot be read: it must begin with a BEGIN ... PRIVATE KEY line.").Because(err)
	}
	return key, nil
}

func checkKnownHosts(text string) error {
	rest, keys := []byte(text), 0
	for {
		var err error
		_, _, _, _, rest, err = ssh.ParseKnownHosts(rest)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		keys++
	}
	if keys == 0 {
		return errors.New("there is no key")
	}
	return nil
}

func sftpAddress(settings map[string]string) string {
	port := settings[sftpPort]
	if port == "" {
		port = defaultSSHPort
	}
	return net.JoinHostPort(settings[sftpHost], port)
}

func sftpPlace(settings map[string]string) place {
	p := path.Clean(settings[sftpPath])
	host, port, _ := net.SplitHostPort(sftpAddress(settings)) // put together one line above
	return place{
		name:  fmt.Sprintf("sftp://%s@%s%s", settings[sftpUser], sftpAddress(settings), p),
		noun:  "folder",
		field: "settings." + sftpPath,
		connect: []string{
			"sftp", "--host", quote(host), "--port", port, "--username", quote(settings[sftpUser]),
			"--path", quote(p), "--keyfile", "KEY", "--known-hosts", "KNOWN_HOSTS",
		},
	}
}

// hostKeys makes of known hosts the check of a server's key, and the kinds of
// keys that are known of address: asked for another kind, a server would show
// a key that nobody can compare.
func hostKeys(dir, text, address string) (ssh.HostKeyCallback, []string, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, nil, err
	}
	f, err := os.CreateTemp(dir, "known-hosts-*") // the library reads files only
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(f.Name()) //nolint:errcheck // public keys; nobody reads the file again
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, err
	}
	check, err := knownhosts.New(f.Name())
	if err != nil {
		return nil, nil, err
	}
	var unknown *knownhosts.KeyError
	if err := check(address, &net.TCPAddr{}, noKey{}); !errors.As(err, &unknown) || len(unknown.Want) == 0 {
		return nil, nil, backup.Errorf(backup.Invalid, "settings."+sftpKnownHosts,
			"The known hosts do not name %s, so that its key could not be compared. Add the line that ssh-keyscan prints for it, once you have compared it.", address)
	}
	var kinds []string
	for _, k := range unknown.Want {
		for _, a := range algorithms(k.Key.Type()) {
			if !slices.Contains(kinds, a) {
				kinds = append(kinds, a)
			}
		}
	}
	return check, kinds, nil
}

// algorithms are the ways in which a server proves that it has a key.
func algorithms(kind string) []string {
	if kind == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{kind}
}

// noKey is a key that no host has.
type noKey struct{}

// Type implements [ssh.PublicKey].
func (noKey) Type() string { return "none" }

// Marshal implements [ssh.PublicKey].
func (noKey) Marshal() []byte { return nil }

// Verify implements [ssh.PublicKey].
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }
