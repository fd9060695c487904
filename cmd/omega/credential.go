package main

import (
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/credential"
)

func newCredentialCommand(a *app) *cobra.Command {
	list1 := &cobra.Command{
		Use: "list", Short: "Who may act beyond its host, until when, by whose word", Args: cobra.NoArgs, Example: "  omega credential list --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.ListCredentials(cmd.Context(), &apiv1.ListCredentialsRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, x := range r.Credentials {
				if a.json {
					if err := a.emit(credentialJSON(x)); err != nil {
						return err
					}
					continue
				}
				state := "stands"
				if x.Why != "" {
					state = x.Why
				}
				var may []string
				for _, k := range x.Capabilities {
					may = append(may, k.Action)
				}
				rows = append(rows, []string{shortID(x.Serial), x.Name, strings.Join(may, ","), clock(x.NotAfter), short(x.Issuer), state})
			}
			return a.table([]string{"SERIAL", "HOLDER", "MAY", "UNTIL", "BY", "STATE"}, rows)
		},
	}
	var vc bool
	show := &cobra.Command{
		Use: "show SERIAL", Short: "One credential; with --vc as a W3C Verifiable Credential (experimental)", Args: cobra.ExactArgs(1), Example: "  omega credential show 3f9c2a --vc",
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			x, err := findCredential(cmd, c, args[0])
			if err != nil {
				return err
			}
			if !vc {
				return a.emit(credentialJSON(x))
			}
			one, err := credential.Decode(x.Raw)
			if err != nil {
				return err
			}
			raw, err := one.VC()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s\n", raw)
			return err
		},
	}
	show.Flags().BoolVar(&vc, "vc", false, "as a W3C Verifiable Credential 2.0; its post-quantum proof is no standard yet")
	var why string
	revoke := &cobra.Command{
		Use: "revoke SERIAL --why TEXT", Short: "End a credential before its time, and what was ordered under it", Args: cobra.ExactArgs(1), Example: "  omega credential revoke 3f9c2a --why 'laptop lost'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if why == "" {
				return fail(exitUsage, "--why is needed: it is kept with the entry for ever")
			}
			return a.asOperator(cmd.Context(), func(c *client.Client, op *client.Operator) error {
				x, err := findCredential(cmd, c, args[0])
				if err != nil {
					return err
				}
				serial, err := hex.DecodeString(x.Serial)
				if err != nil {
					return fmt.Errorf("the node names a serial %q: not hex", x.Serial)
				}
				id, err := op.Submit(cmd.Context(), &authority.RevokeCredentialBody{Serial: serial, Why: why})
				if err != nil {
					return err
				}
				return a.say(map[string]any{"id": id, "serial": x.Serial}, "%s of %s is revoked", shortID(x.Serial), printable(x.Name))
			})
		},
	}
	revoke.Flags().StringVar(&why, "why", "", "the reason, kept for ever")
	return group("credential", "Short-lived permissions to act beyond one's host", "  omega credential list\n  omega credential revoke 3f9c2a --why 'laptop lost'", list1, show, revoke)
}

func findCredential(cmd *cobra.Command, c *client.Client, want string) (*apiv1.Credential, error) {
	r, err := c.ListCredentials(cmd.Context(), &apiv1.ListCredentialsRequest{})
	if err != nil {
		return nil, err
	}
	var serials []string
	for _, x := range r.Credentials {
		serials = append(serials, x.Serial)
	}
	serial, err := oneOf("credential", want, serials)
	if err != nil {
		return nil, err
	}
	for _, x := range r.Credentials {
		if x.Serial == serial {
			return x, nil
		}
	}
	return nil, fail(exitNotFound, "no credential %q", want)
}

func credentialJSON(x *apiv1.Credential) map[string]any {
	may := []any{}
	for _, k := range x.Capabilities {
		may = append(may, map[string]any{"action": k.Action, "peers": list(k.Peers), "max_ttl_ms": k.MaxTtlMs})
	}
	return map[string]any{"serial": x.Serial, "issuer": x.Issuer, "subject": x.Subject, "name": x.Name, "not_before": x.NotBefore.AsTime().Format(time.RFC3339Nano),
		"not_after": x.NotAfter.AsTime().Format(time.RFC3339Nano), "roles": list(x.Roles), "capabilities": may, "delegations": x.Depth, "stands": x.Why == "", "why": x.Why}
}
