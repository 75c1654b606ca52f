// Package former knows what other readers of Kamstrup meters leave behind: their settings,
// topics and entities, and what of that kmp2mqtt takes over.
package former
