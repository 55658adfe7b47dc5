package backup

import (
	"fmt"
	"maps"
	"strings"
	"time"
)

// RepositoryRecord is a repository as the installation knows it.
type RepositoryRecord struct {
	Meta
	Name        string
	Kind        string            // filesystem, s3 or sftp
	Settings    map[string]string // by kind; filesystem: path
	Password    Secret            // random, made with the repository
	Compression string            // s2 (default), zstd-fastest or none
	VerifyDays  int               // default 30
	Default     bool              // taken by schedules that name none
	UniqueID    string            // the repository's own id
	CheckedAt   time.Time
	CheckError  string
	StoredBytes int64 // packed, as of CheckedAt
	ImageCount  int
	FreeBytes   int64 // of the file system, as of CheckedAt; -1 = not known
	OwnedBy     string
	ReadOnly    bool

	// NextPassword is set while the password is being changed: until that is
	// over either of the two may open it. "" = no change is under way.
	NextPassword Secret
	// SheetAt is when the recovery sheet was given out that is still right; zero
	// = none is. SheetLapsedAt is since when the last one is not; zero = there
	// was none, or it is right.
	SheetAt       time.Time
	SheetLapsedAt time.Time
	AwaySince     time.Time // since when it could not be used; zero = it can
}

// lapse notes that a recovery sheet that was given out is right no more.
func (r *RepositoryRecord) lapse(now time.Time) {
	if !r.SheetAt.IsZero() {
		r.SheetAt, r.SheetLapsedAt = time.Time{}, now
	}
}

// noted takes over what a server has noted meanwhile.
func (r *RepositoryRecord) noted(now RepositoryRecord) {
	r.CheckedAt, r.CheckError, r.AwaySince = now.CheckedAt, now.CheckError, now.AwaySince
	r.StoredBytes, r.ImageCount, r.FreeBytes = now.StoredBytes, now.ImageCount, now.FreeBytes
	r.SheetAt, r.SheetLapsedAt = now.SheetAt, now.SheetLapsedAt
}

// Foreign says whether another installation than ours may write to it.
func (r RepositoryRecord) Foreign(installation string) bool {
	return r.OwnedBy != "" && r.OwnedBy != installation
}

// Warnings tells what an operator should see to, each with its remedy.
func (r RepositoryRecord) Warnings(installation string, u Upkeep) []string {
	var all []string
	warn := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	day := func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
	switch {
	case r.Foreign(installation):
		warn("It belongs to installation %s and can only be read from here. If that one is gone, take it over: kura repository takeover %q --yes.", r.OwnedBy, r.Name)
	case !r.SheetAt.IsZero():
	case r.SheetLapsedAt.IsZero():
		warn("No recovery sheet was given out: without one, the images are lost with the server's database. Keep one: kura repository recovery-sheet %q.", r.Name)
	default:
		warn("The recovery sheet is out of date since %s, as the password or the settings have changed. Keep a new one: kura repository recovery-sheet %q.", day(r.SheetLapsedAt), r.Name)
	}
	if u.Collected.IndexBlobs > MaxIndexBlobs {
		warn("It has %d index blobs, and more than %d make it slow. Have it maintained: kura repository maintain %q.", u.Collected.IndexBlobs, MaxIndexBlobs, r.Name)
	}
	if !r.AwaySince.IsZero() {
		warn("It cannot be used since %s: %s. Backups to it fail until that is mended.", day(r.AwaySince), strings.TrimSuffix(r.CheckError, "."))
	}
	return all
}

// secretSettings are the settings that nobody is told, unless they say only
// where the secret is.
var secretSettings = map[string]bool{"access_key_id": true, "secret_access_key": true, "session_token": true, "private_key": true, "http_password": true}

// hiddenSetting is shown in place of a secret.
const hiddenSetting = "***"

// PublicSettings returns the settings without what opens the storage. A secret
// that is given by name, as env:NAME or file:PATH, is shown as that.
func (r RepositoryRecord) PublicSettings() map[string]string {
	all := map[string]string{}
	for k, v := range r.Settings {
		if secretSettings[k] && !strings.HasPrefix(v, "env:") && !strings.HasPrefix(v, "file:") {
			v = hiddenSetting
		}
		all[k] = v
	}
	return all
}

// settingsWith returns changed settings in which a secret that is shown as
// hidden is what it was. Errors: Invalid.
func (r RepositoryRecord) settingsWith(changed map[string]string) (map[string]string, error) {
	all := maps.Clone(changed)
	for name, v := range changed {
		if v != hiddenSetting || !secretSettings[name] {
			continue
		}
		old, ok := r.Settings[name]
		if !ok {
			return nil, Errorf(Invalid, "settings."+name, "There is no %s yet that %q could stand for: give it.", name, hiddenSetting)
		}
		all[name] = old
	}
	return all, nil
}
