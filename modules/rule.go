package modules

// RuleID is the id under which a module's finding stands: a module's own, so that none can speak with the voice of
// another, or of a detector that policy acts upon by name.
func RuleID(module, id string) string { return "module." + module + "." + id }
