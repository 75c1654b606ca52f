// Package catalog says what the numbers of the Kamstrup Meter Protocol mean: the
// registers, units, info codes, meter models and type codes that are publicly
// known, each with its source.
//
// The knowledge is data, in the CSV files beside this code; a new meter adds rows.
// docs/registers.md is the same data to read; a test writes it.
//
//	registers.csv   what can be read: name, title, unit, kind, models
//	units.csv       the unit codes 0 to 90: symbol, suffix of a JSON key, factor
//	models.csv      the meters, what is usually read from them, and how often
//	typecodes.csv   what GetType answers
//	infotables.csv  which table explains an info code of which model and register
//	infocodes.csv   the rows of these tables
//
// A register's name is a promise to the people who build dashboards on it. It is
// never changed, and it never tells the unit: the unit is the one that the meter
// sends, and [Key] joins the two.
//
// Nothing here does I/O or can fail at run time: the files are part of the program
// and are parsed at the first use.
package catalog
