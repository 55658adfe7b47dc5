package backup

import (
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
}

// secretSettings are the settings that nobody is told, unless they say only
// where the secret is.
var secretSettings = map[string]bool{"access_key_id": true, "secret_access_key": true, "session_token": true, "private_key": true}

// PublicSettings returns the settings without what opens the storage. A secret
// that is given by name, as env:NAME or file:PATH, is shown as that.
func (r RepositoryRecord) PublicSettings() map[string]string {
	all := map[string]string{}
	for k, v := range r.Settings {
		if secretSettings[k] && !strings.HasPrefix(v, "env:") && !strings.HasPrefix(v, "file:") {
			v = "***"
		}
		all[k] = v
	}
	return all
}
