package privileged

import (
	"fmt"
	"net"
	"os"
)

// Notify tells systemd the state of a Type=notify unit ("READY=1", "STOPPING=1"); without $NOTIFY_SOCKET it does nothing.
// See sd_notify(3).
func Notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] != '@' && name[0] != '/' {
		return fmt.Errorf("NOTIFY_SOCKET: %q is neither a path nor an abstract name", name)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("systemd notification: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("systemd notification: %w", err)
	}
	return nil
}
