// Package size reads and writes amounts of bytes as people do.
//
// Owns: the spelling of sizes, on the command line and in parameters.
//
// Never: a limit. What a volume may measure is the driver's business.
package size
