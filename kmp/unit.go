package kmp

// Unit is the unit code that stands before every value on the wire. It tells the
// physical unit and, for the codes named below, a format that is not a plain
// number. Symbols ("GJ", "l/h") are the business of package catalog.
//
// Sources: Kamstrup 5512-447 section 5.1 for the heat meters' units; the others
// as listed in package catalog.
type Unit byte

// The units whose values are not plain numbers, and the few plain ones that the
// program itself has to know.
const (
	UnitNone        Unit = 0x00 // a number without a unit
	UnitWh          Unit = 0x01
	UnitKWh         Unit = 0x02
	UnitMWh         Unit = 0x03
	UnitGJ          Unit = 0x08
	UnitKW          Unit = 0x16
	UnitCelsius     Unit = 0x25 // °C
	UnitKelvin      Unit = 0x26 // K
	UnitLitre       Unit = 0x27 // l
	UnitCubicMetre  Unit = 0x28 // m³
	UnitLitrePerH   Unit = 0x29 // l/h
	UnitCubicMPerH  Unit = 0x2A // m³/h
	UnitCubicMC     Unit = 0x2B // m³·°C
	UnitTonne       Unit = 0x2C
	UnitHour        Unit = 0x2E
	UnitClock       Unit = 0x2F // decimal hhmmss
	UnitDate        Unit = 0x30 // decimal YYMMDD, year from 2000; 0 is no date
	UnitDate4       Unit = 0x31 // decimal YYYYMMDD
	UnitMonthDay    Unit = 0x32 // decimal MMDD
	UnitNumber      Unit = 0x33 // a number without a unit, may exceed 8 bytes
	UnitRTC         Unit = 0x35 // 8 bytes: flags, weekday, ss, mm, hh, DD, MM, YY
	UnitASCII       Unit = 0x36 // characters, first byte first
	UnitBits        Unit = 0x3B // bit field
	UnitRTCQ        Unit = 0x3F // as UnitRTC
	UnitDateTime    Unit = 0x48 // 5 bytes: flags, seconds since 2000-01-01 local time
	UnitDSTDateTime Unit = 0x4F // 7 bytes: DST minutes, YY, MM, DD, hh, mm, ss
)
