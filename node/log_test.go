package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/node/config"
)

func TestNoTokenReachesTheJournal(t *testing.T) {
	const token = "omega1mfrggzdfmztwq2lknnwg23tpobyxe43uov3ho6dzpi"
	for _, format := range []string{"text", "json"} {
		var b strings.Builder
		cfg := config.Default(t.TempDir())
		cfg.LogFormat = format
		log := newLog(&b, cfg)
		log.Info("join "+token, "token", token, "err", errors.New("dial: "+strings.ToUpper(token)), "other", "omega1 is fine")
		if s := strings.ToLower(b.String()); strings.Contains(s, "mfrggz") || strings.Count(s, "omega1[redacted]") != 3 || !strings.Contains(s, "omega1 is fine") {
			t.Errorf("%s: %s", format, b.String())
		}
	}
}
