#pragma once
// Includes Catch2, version 2 or 3. torch (c10) defines CHECK, too: include torch before this header, which gives the
// name to Catch2.
#undef CHECK
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
