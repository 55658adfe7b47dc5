package auth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// FuzzBearers: a header holds a token's text, or is refused in words that do not
// repeat it.
func FuzzBearers(f *testing.F) {
	for _, h := range []string{"Bearer kura_x", "bearer  kura_x ", "Basic a3VyYTp4", "Bearer", "Bearer kura_" + strings.Repeat("x", 300), "kura_x", "Bearer\tkura_x", "Bearer kura_\xff"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, header string) {
		text, err := bearer(&http.Request{Header: http.Header{"Authorization": {header}}})
		if err == nil {
			if !strings.HasPrefix(text, prefix) || len(text) > maxTextSize || !strings.Contains(header, text) || len(Hash(text)) != 64 {
				t.Errorf("%q holds the token %q", header, text)
			}
			return
		}
		if e := backup.AsError(err); e == nil || e.Code != backup.Unauthenticated || len(header) > 12 && strings.Contains(e.Message, header) {
			t.Errorf("%q: %v", header, err)
		}
	})
}
