#pragma once
// The only way to Catch2 in this project. torch (c10) defines CHECK too: whoever includes torch must do it before
// this header, which then hands the name to Catch2. Takes Catch2 2 and 3.
#undef CHECK
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
