// Package supervisor turns what Home Assistant's supervisor tells an app, its options and the
// broker's address, into the program's settings.
package supervisor
