package repository

import (
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// ReadSheet makes a record of what a recovery sheet says. It can only be read
// from. Errors: Invalid.
func ReadSheet(text string) (backup.RepositoryRecord, error) {
	r := backup.RepositoryRecord{Name: "sheet", ReadOnly: true, Settings: map[string]string{}}
	if strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN AGE") {
		return r, backup.Errorf(backup.Invalid, "sheet", "The sheet is encrypted. Decrypt it first: age --decrypt --identity KEYFILE SHEET.")
	}
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if more, folded := strings.CutPrefix(line, "    "); folded && last != "" { // of a value of several lines
			r.Settings[last] += "\n" + more
			continue
		}
		name, value, ok := strings.Cut(line, ": ")
		last = ""
		switch {
		case !ok || strings.Contains(name, " ") && name != "repository id":
		case name == "kind":
			r.Kind = strings.TrimSpace(value)
		case name == "repository id":
			r.UniqueID = strings.TrimSpace(value)
		case name == "password":
			r.Password = backup.Secret(strings.TrimSpace(value))
		default:
			r.Settings[name], last = value, name
		}
	}
	r.ID = r.UniqueID
	if r.Kind == "" || r.Password == "" || r.UniqueID == "" {
		return r, backup.Errorf(backup.Invalid, "sheet", "This is no recovery sheet of Kura: it lacks the kind, the password or the repository id.")
	}
	return r, check(r)
}
